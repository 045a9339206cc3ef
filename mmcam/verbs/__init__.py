"""What the verbs of the command line share: the options that choose a model, and tables.

A verb has `configure(parser)` and `run(arguments) -> int`; `arguments.overrides` holds the YAML keys set on the command
line. Heavy imports belong inside `run`.
"""

from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError

__all__ = ["add_model", "add_texts", "check_text", "overrides_of", "print_config", "table", "text_of"]


def add_model(parser: ArgumentParser, default: str) -> None:
    """Add the options that choose a model and where it runs.

    Args:
        parser: The verb's parser.
        default: Says in the help which configuration is taken if none is given.
    """
    parser.add_argument(
        "--config", type=str, default="", help=f"YAML file, or name of a shipped one (default: {default})"
    )
    parser.add_argument("--layer", type=str, default="", help="the layer to explain, instead of the configuration's")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    parser.add_argument(
        "--print_config", action="store_true", help="print the configuration as it would be used, and stop"
    )


def add_texts(parser: ArgumentParser) -> None:
    """Add the options that say what is explained, instead of what the model itself says."""
    parser.add_argument("--caption", type=str, help="explain this caption")
    parser.add_argument("--answer", type=str, help="explain this answer (several with commas between)")
    parser.add_argument("--class", type=str, help="explain this class (several with commas between)")


def text_of(arguments: Namespace) -> str:
    """The caption, answer or class that the user gives; "" if none.

    Raises:
        UserError: There are several, or one is empty.
    """
    given = {f"--{name}": arguments[name] for name in ("caption", "answer", "class") if arguments[name] is not None}
    if len(given) > 1:
        raise UserError(f"expected one of --caption, --answer, --class, got {' and '.join(given)}; run once for each")
    for option, text in given.items():
        check_text(option, text)
    return next(iter(given.values()), "")


def check_text(option: str, text: str) -> None:
    """Refuse an option that was given without a text.

    Raises:
        UserError: It is empty.
    """
    if not text.strip():
        raise UserError(f"{option}: expected a text, got an empty one; leave the option out if there is none")


def overrides_of(arguments: Namespace) -> dict[str, Any]:
    """The YAML keys that the command line sets, `--layer` among them."""
    layer = {"task.init_args.layer": arguments.layer} if arguments.layer else {}
    return arguments.overrides | layer


def print_config(config: str | dict[str, Any], overrides: dict[str, Any], **sections: type) -> None:
    """Print a configuration as a verb would use it.

    Args:
        config: The configuration.
        overrides: The YAML keys that the command line sets.
        sections: What the verb makes of it, with the class that each must be: these have every default filled in. The
            others are printed as they stand.
    """
    from mmcam.config import read_config, resolve

    used = {section: resolve(config, section, base, overrides) for section, base in sections.items()}
    content = read_config(config) | used
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Lay out rows of text in columns; numbers are aligned to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    right = [bool(rows) and all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        indent
        + "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
