"""Classes by their full names: imported, held against the arguments that a file gives them, and made."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from inspect import isabstract
from typing import Any, TypeVar, cast, get_args, get_type_hints

from jsonargparse import ArgumentParser

from mmcam.errors import UserError, unknown

T = TypeVar("T")


def import_class(path: object, where: str, base: type[T] = object) -> type[T]:
    """Import a class by its full name.

    Args:
        path: "package.module.Class".
        where: The key that it stands at, for the error.
        base: What it must be a subclass of.

    Returns:
        The class.

    Raises:
        UserError: There is no such module or class, it is no subclass, or the module needs a package that is missing.
    """
    if not (isinstance(path, str) and "." in path and all(part.isidentifier() for part in path.split("."))):
        raise UserError(f"{where}: expected a class with its module, such as 'captioning.CaptioningTask', got {path!r}")
    module, _, name = path.rpartition(".")
    try:
        content = import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if f"{module}.".startswith(f"{missing}."):
            hint = "check the spelling, and that you start from the folder that holds it"
            raise UserError(f"{where}: expected a module to import, but there is no {missing!r}; {hint}") from error
        hint = f"pip install {missing.partition('.')[0]}"
        raise UserError(f"{where}: {module} needs the package {missing!r}, which is not installed; {hint}") from error
    try:
        cls = getattr(content, name)
    except AttributeError:
        classes = {
            known for known, value in vars(content).items() if isinstance(value, type) and issubclass(value, base)
        }
        raise unknown(f"class in {module}", name, classes | {*getattr(content, "__all__", ())}) from None
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UserError(f"{where}: expected a subclass of {base.__module__}.{base.__qualname__}, got {path!r}")
    if isabstract(cls):
        left = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise UserError(f"{where}: expected a class that can be made, but {path!r} is abstract; it lacks {left}")
    return cls


def parser_of(cls: type, arguments: object, where: str) -> ArgumentParser:
    """Refuse names that a constructor does not have, also inside nested classes; give the constructor's parser."""
    if not isinstance(arguments, dict):
        raise UserError(f"{where}: expected the arguments of {cls.__qualname__} by name, got {arguments!r}")
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(cls, None, fail_untyped=False)
    known = {name.partition(".")[0] for name in parser.get_defaults().keys()}  # noqa: SIM118 (a Namespace)
    for name, value in arguments.items():
        if name not in known:
            raise unknown(f"key of {where}", str(name), known)
        for place, nested in _nested(value, f"{where}.{name}"):
            parser_of(import_class(nested["class_path"], f"{place}.class_path"), nested.get("init_args") or {}, place)
    return parser


def _nested(value: object, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find the classes among an argument's values."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield where, value
            return
        for key, inner in value.items():
            yield from _nested(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _nested(inner, f"{where}[{number}]")


def make(cls: type[T], arguments: dict[str, Any], more: dict[str, Any]) -> T:
    """Make an object of arguments that were checked; nested classes are made first.

    Args:
        cls: Its class.
        arguments: As the class's parser gives them.
        more: Those that its signature does not name.
    """
    return cls(**_grouped(cls, _made(arguments)), **more)


def _made(value: Any) -> Any:  # noqa: ANN401
    """Make nested classes, innermost first. Not by jsonargparse, which hides what a constructor raises."""
    if isinstance(value, dict):
        made = {key: _made(inner) for key, inner in value.items()}
        if "class_path" not in made:
            return made
        cls = cast(Any, import_class(made["class_path"], "class_path"))
        return cls(**made.get("init_args", {}), **made.get("dict_kwargs", {}))
    if type(value) in (list, tuple):
        return type(value)(_made(inner) for inner in value)
    return value


def _grouped(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Make dataclasses of the arguments that are annotated so, such as `source: {revision: …}`."""
    if not any(type(value) is dict for value in arguments.values()):
        return arguments
    hints = get_type_hints(cls.__init__)
    made = dict(arguments)
    for name, value in arguments.items():
        hint = hints.get(name)
        kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)]
        if kinds and type(value) is dict:
            made[name] = kinds[0](**value)
    return made
