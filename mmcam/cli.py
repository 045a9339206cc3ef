"""The command line: finds the verb, reads its arguments, turns errors into one line and an exit code. No logic.

    0    done
    1    done, but some pictures failed or a check did
    2    nothing done: the command or the configuration is wrong
    130  interrupted

A verb is a module with `configure(parser)` and `run(arguments) -> int`, imported when it is called. None imports torch
before `run`, so that help answers at once.
"""

import logging
import os
import sys
import traceback
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from mmcam import __version__
from mmcam.config import SECTIONS, one_line
from mmcam.errors import UserError, unknown

VERBS = {
    "explain": ("mmcam.verbs.explain", "show where a model looked, for every word, answer or class"),
    "dump": ("mmcam.verbs.dump", "explain a whole data set, into a file that outlives any accident"),
    "evaluate": ("mmcam.verbs.evaluate", "hold maps against the truth, as a table that can be put in a paper"),
    "report": ("mmcam.verbs.report", "show a dump as one HTML file that opens from the disk"),
    "demo": ("mmcam.verbs.demo", "serve a page on this machine that shows where models look"),
    "study": ("mmcam.verbs.study", "ask people what they see in maps, and which of two models they trust"),
    "doctor": ("mmcam.verbs.doctor", "check that maps of your own model and layer can be trusted"),
    "layers": ("mmcam.verbs.layers", "list the layers that can be explained, and say why others cannot"),
    "scenes": ("mmcam.verbs.scenes", "write the embedded world as a data set in COCO's and VQA's formats"),
    "import": ("mmcam.verbs.import_", "turn other people's checkpoints into models that can be explained"),
    "train": ("mmcam.verbs.train", "train a model by its configuration"),
    "quality": ("mmcam.verbs.quality", "measure a model, and whether its maps point at what it says"),
}

HELP = """\
usage: mmcam VERB ...

Where did the model look when it said that?

{verbs}

options:
  -h, --help   show this help, or with a verb that verb's
  --version    show the version
  --debug      with a verb: show the traceback of an error

examples:
  mmcam explain photo.jpg
  mmcam explain photo.jpg --question "what is above the dog?"
  mmcam explain --help"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words; those of the process if not given.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    verb = next((word for word in words if not word.startswith("-")), "")
    name = f"mmcam {verb}" if verb in VERBS else "mmcam"
    log = logging.StreamHandler()
    log.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    logger = logging.getLogger("mmcam")
    logger.addHandler(log)
    level = logger.level
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    # The user's own class, `class_path: my_task.MyTask`, lies where the user stands. Last, so that it hides nothing.
    sys.path.append(str(Path.cwd()))
    try:
        code = _run([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mmcam … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain at its end
        return 0
    except SystemExit as error:  # --help
        return error.code if isinstance(error.code, int) else 0
    except Exception as error:
        if debug or not (message := _explained(error)):
            traceback.print_exc()
            return 2 if isinstance(error, UserError | ArgumentError) else 1
        print(f"{name}: {message}", file=sys.stderr)
        return 2
    finally:
        sys.path.pop()
        logger.removeHandler(log)
        logger.setLevel(level)


def parser_of(verb: str) -> ArgumentParser:
    """Make the parser of a verb."""
    module, summary = VERBS[verb]
    parser = ArgumentParser(
        prog=f"mmcam {verb}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,  # jsonargparse's own knows nothing of sections
    )
    import_module(module).configure(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def split_overrides(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Part a command's words from the overrides of YAML keys: `--task.init_args.layer=layer3`, also without the "=".

    Returns:
        The other words, and the overrides by key.

    Raises:
        UserError: An override has no value.
    """
    rest, overrides = [], {}
    left = iter(words)
    for word in left:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in key or key.partition(".")[0] not in SECTIONS:
            rest.append(word)
            continue
        if not equals:
            value = next(left, "--")
            if value.startswith("--"):
                raise UserError(f"expected a value for {word}, got none; write {word}=…")
        overrides[key] = value
    return rest, overrides


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, VERBS)) + 4
        print(HELP.format(verbs="\n".join(f"  {verb:<{width}}{summary}" for verb, (_, summary) in VERBS.items())))
        return 0 if words else 2
    if words[0] == "--version":
        print(f"mmcam {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    parser = parser_of(verb)
    rest, overrides = split_overrides(words[1:])
    known = {*parser._option_string_actions}
    for word in rest[: rest.index("--") if "--" in rest else None]:
        if word.startswith("--") and (option := word.partition("=")[0]) not in known:
            raise unknown(f"option of mmcam {verb}", option, [name for name in known if name.startswith("--")])
    arguments: Namespace = parser.parse_args(rest)
    arguments["overrides"] = overrides
    return import_module(VERBS[verb][0]).run(arguments)


def _explained(error: Exception) -> str:
    """Say in one line what the user can do about an error; "" for an error that is ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ArgumentError):
        return f"{one_line(error)}; see --help"
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}"
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return "out of memory; choose a smaller --batch-size, a later --layer or --device cpu"
    return ""


if __name__ == "__main__":
    sys.exit(main())
