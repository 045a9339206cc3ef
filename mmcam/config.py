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
from collections.abc import Mapping
from copy import deepcopy
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from jsonargparse import Namespace

from mmcam.class_path import import_class, make, parser_of
from mmcam.errors import UserError, unknown
from mmcam.resources import config_path

__all__ = ["SECTIONS", "Config", "instantiate", "one_line", "read_config", "resolve"]

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
    return make(cls, values.as_dict(), more)


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
    parser = parser_of(cls, arguments, where)
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


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple | set | frozenset) else str(value)
