"""Which pictures the user means: paths, folders and globs."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from mmcam.errors import UserError

# fmt: off
SUFFIXES = (".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png",
            ".pnm", ".ppm", ".tif", ".tiff", ".webp")
# fmt: on


def find_images(arguments: Sequence[str]) -> list[Path]:
    """List the pictures that paths, folders and globs stand for.

    A file named outright is kept whatever its suffix. A folder gives every picture in it and below it, by suffix, in
    sorted order; so does a glob (`"photos/**/*.jpg"`). Hidden files and folders are passed over unless named.

    Args:
        arguments: What the user typed, in order.

    Returns:
        The pictures in the order of the arguments, each file once.

    Raises:
        UserError: An argument does not exist or stands for no picture, or there are no arguments.
    """
    if not arguments:
        raise UserError("expected pictures, folders or globs, got none; name at least one picture")
    found: dict[Path, Path] = {}
    for argument in arguments:
        for path in _expand(argument):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def check_file(path: Path, what: str = "picture") -> None:
    """Make sure that a path is an ordinary file.

    Args:
        path: The path.
        what: What the file should be, for errors.

    Raises:
        UserError: It is not; the nearest names in its folder are told where it is missing.
    """
    name = str(path)
    try:
        if path.is_file():
            return
        if path.is_dir():
            raise UserError(f"{name!r}: expected a {what}, got a folder; name a {what} in it")
        if path.exists():
            raise UserError(
                f"{name!r}: expected an ordinary file, got a device or pipe; save the {what} to a file first"
            )
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise UserError(f"{name!r}: expected a {what}, got {error.strerror or error}; check the path") from error
    near = get_close_matches(path.name, beside, n=3)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "check the path"
    raise UserError(f"{name!r}: expected a {what}, but there is no such file; {hint}")


def _expand(argument: str) -> list[Path]:
    """Give the pictures of one argument, in order."""
    if not argument.strip():
        raise UserError(f"expected a picture, a folder or a glob, got {argument!r}; name one ('.' is this folder)")
    path = Path(argument).expanduser() if argument.startswith("~/") else Path(argument)
    try:
        exists, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # too long a name, or a zero byte in it
        exists = folder = False
    if folder:
        found = _pictures(path.rglob("*"), path)
        if not found:
            raise UserError(
                f"{argument!r}: expected pictures in the folder, found none; known are {', '.join(SUFFIXES)}"
            )
        return found
    if exists:
        return [path]
    if not any(c in argument for c in "*?["):
        check_file(path)
    try:
        matches = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"{argument!r}: expected a glob such as 'photos/**/*.jpg', got one that is not: {error}"
        ) from error
    below = (picture for match in matches if match.is_dir() for picture in match.rglob("*"))
    found = _pictures({*matches, *below}, path)
    if not found:
        came = f"{len(matches)} of another kind" if matches else "no file"
        raise UserError(
            f"{argument!r}: expected pictures, but the glob matches {came}; known are {', '.join(SUFFIXES)}"
        )
    return found


def _pictures(paths: Iterable[Path], named: Path) -> list[Path]:
    """Keep the files with a picture's suffix, sorted; hidden ones only where the user has named the hidden part."""
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") and part not in named.parts for part in path.parts)
        and path.is_file()
    )
