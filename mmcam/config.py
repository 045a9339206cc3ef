"""From YAML to objects: a run's file has sections, and a section names a class and its arguments.

    task:
      class_path: captioning.CaptioningTask
      init_args:
        model: captioning-scenes
    train: …
    quality: …

The folder of a model whose `config.json` has such a task under the key "task" is a configuration as well.

Each verb makes the sections that it needs. The values are checked against the constructor's annotations, also those
given on the command line; a name that the constructor does not have is refused. This module imports no torch.
"""

import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import is_dataclass
from importlib import import_module
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError, unknown
from mmcam.resources import config_path

__all__ = ["SECTIONS", "Config", "import_class", "instantiate", "one_line", "read_config", "resolve"]

SECTIONS = ("task", "data", "train", "quality", "explain", "metrics", "experiment", "questions", "samples")
"""What may stand at the top level of a file."""

KEYS = ("class_path", "init_args", "dict_kwargs")
Config = str | Path | Mapping[str, Any]
"""A shipped configuration's name, a YAML file, a model's folder, or what would be read from a file."""

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML as of version 1.2 in one respect: yes, no, on and off are words, which this package is about."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_config(config: Config) -> dict[str, Any]:
    """Read a run's configuration.

    Args:
        config: See `Config` and `mmcam.resources.config_path`.

    Returns:
        The sections, in a dictionary of the caller's own.

    Raises:
        UserError: There is no such file, it is not YAML, or it has a section that nothing reads.
    """
    if isinstance(config, Mapping):
        name, content = "the configuration", deepcopy(dict(config))
    else:
        path = config_path(config)
        name = str(path)
        if path.name == "config.json" and (path.parent / "model.safetensors").is_file():
            return _of_model(path)
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{name}: expected YAML, got {one_line(error)}; mend the file") from error
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{name}: expected sections such as 'task:', got {type(content).__name__}; see mmcam explain -h"
        )
    for key in content:
        if key not in SECTIONS:
            raise unknown(f"section of {name}", str(key), SECTIONS)
    return content


def _of_model(path: Path) -> dict[str, Any]:
    """The configuration of a model that knows its task; the model is the file's own folder, wherever that lies now."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON: {error}") from error
    task = content.get("task") if isinstance(content, dict) else None
    if not isinstance(task, dict) or "class_path" not in task:
        raise UserError(
            f"{path} does not say which task the model is for, as those of mmcam import do; write a YAML file with "
            f"task: {{class_path: …, init_args: {{model: {path.parent}}}}} and name that"
        )
    arguments = {**(task.get("init_args") or {}), "model": str(path.parent)}
    return {"task": {"class_path": task["class_path"], "init_args": arguments}}


def instantiate(config: Config, section: str, base: type[T], overrides: Mapping[str, Any] | None = None) -> T:
    """Make the object that a section describes.

    Args:
        config: The configuration.
        section: One of `SECTIONS`.
        base: What the object must be. Where the section has no `class_path` and `base` is not abstract, the section's
            keys are the arguments of `base` itself.
        overrides: Values that win over the file's. `layer` and `task.init_args.layer` both mean the section's argument
            `layer`, and `__` may stand for the dot; those of other sections are passed over. A text is read as on the
            command line: "3" is a number where the argument is one.

    Returns:
        The object; nested classes (`model: {class_path: …}`) are made first.

    Raises:
        UserError: The section, a class or a key is unknown, or a value has the wrong type.
    """
    cls, values, more = _parse(config, section, base, overrides or {})
    return cls(**_grouped(cls, _make(values.as_dict())), **more)


def resolve(config: Config, section: str, base: type, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give a section as it will be used, with every default filled in: for `--print_config` and for the record.

    Args:
        config: The configuration.
        section: One of `SECTIONS`.
        base: What the object must be.
        overrides: As for `instantiate`.

    Returns:
        Plain dictionaries, lists and scalars.

    Raises:
        UserError: As for `instantiate`; nothing is made.
    """
    cls, values, more = _parse(config, section, base, overrides or {})
    plain = {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": _plain(values.as_dict())}
    return plain | ({"dict_kwargs": _plain(more)} if more else {})


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


def one_line(error: Exception | str) -> str:
    """Bring a parser's or loader's message of several lines into one, without the types' noise."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    noise = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "Given value",
        "Expected a <class 'NoneType'>",
        "Problem with",
    )
    text = " ".join(line for line in lines if line and not line.startswith(noise))
    text = re.sub(r"Parser key \"([^\"]*)\":", r"\1:", text)
    return re.sub(r"<class '([\w.]+)'>", r"\1", text).replace("typing.", "")


def _parse(
    config: Config, section: str, base: type[T], overrides: Mapping[str, Any]
) -> tuple[type[T], Namespace, dict[str, Any]]:
    """Find a section's class, check its arguments, and give also those that its signature does not name."""
    content = read_config(config)
    chosen = content.get(section)
    if chosen is None:
        if isabstract(base):
            raise UserError(f"expected a section {section!r} in the configuration, got {', '.join(content)}; add one")
        chosen = {}
    if not isinstance(chosen, dict):
        raise UserError(f"{section}: expected keys such as class_path and init_args, got {chosen!r}")
    if not {*chosen} & {*KEYS}:
        chosen = {"init_args": chosen}
    for name, value in overrides.items():
        _set(chosen, section, name, value)
    for key in chosen:
        if key not in KEYS:
            raise unknown(f"key of {section}", str(key), KEYS)
    if "class_path" not in chosen and isabstract(base):
        raise UserError(f"{section}: expected the key class_path, got {', '.join(chosen)}; name a {base.__qualname__}")
    cls = import_class(chosen["class_path"], f"{section}.class_path", base) if "class_path" in chosen else base
    arguments, where = chosen.get("init_args") or {}, f"{section}.init_args"
    parser = _check(cls, arguments, where)
    try:
        return cls, parser.parse_object(arguments), dict(chosen.get("dict_kwargs") or {})
    except ArgumentError as error:
        raise UserError(f"{where}: {one_line(error)}") from error


def _set(chosen: dict[str, Any], section: str, name: str, value: object) -> None:
    """Put one override into a section, if it is one of this section's."""
    path = name.replace("__", ".").split(".")
    if len(path) > 1 and path[0] in SECTIONS:
        if path[0] != section:
            return
        path = path[1:]
    if path[0] not in KEYS:
        path = ["init_args", *path]
    node = chosen
    for place, key in enumerate(path[:-1]):
        if "class_path" in node and key not in KEYS:
            node = node.setdefault("init_args", {})
        if not isinstance(node.get(key, {}) or {}, dict):
            inside = ".".join([section, *path[: place + 1]])
            raise UserError(f"cannot set {name!r}: {inside} is {node[key]!r}, which has no keys; set {inside} itself")
        node[key] = node.get(key) or {}
        node = node[key]
    if "class_path" in node and path[-1] not in KEYS:
        node = node.setdefault("init_args", {})
    node[path[-1]] = value


def _check(cls: type, arguments: object, where: str) -> ArgumentParser:
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
            _check(import_class(nested["class_path"], f"{place}.class_path"), nested.get("init_args") or {}, place)
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


def _make(value: Any) -> Any:  # noqa: ANN401
    """Make nested classes, innermost first. Not by jsonargparse, which hides what a constructor raises."""
    if isinstance(value, dict):
        made = {key: _make(inner) for key, inner in value.items()}
        if "class_path" not in made:
            return made
        cls = cast(Any, import_class(made["class_path"], "class_path"))
        return cls(**made.get("init_args", {}), **made.get("dict_kwargs", {}))
    if type(value) in (list, tuple):
        return type(value)(_make(inner) for inner in value)
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


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple | set | frozenset) else str(value)
