"""The pictures of a command: found, named so that their files differ, and read when their turn comes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count as count_from
from itertools import groupby, product
from pathlib import Path
from typing import TYPE_CHECKING

from mmcam.errors import UserError

if TYPE_CHECKING:
    from mmcam.task import Sample


def find(arguments: Sequence[str], failures: list[str]) -> list[Path]:
    """List the pictures, each once; an argument that stands for none is a failure, not the end of the others."""
    from mmcam.find import find_images

    if not arguments:
        return find_images(arguments)
    found: dict[Path, Path] = {}
    for argument in arguments:
        try:
            for path in find_images([argument]):
                found.setdefault(path.resolve(), path)
        except UserError as error:
            failures.append(str(error))
    return list(found.values())


def names(paths: Sequence[Path]) -> list[str]:
    """Name pictures so that no two are written to the same files: by stem, else with folders, else with suffix.

    Args:
        paths: The pictures, each once.

    Returns:
        One name a picture, in order; `file_name` of them differs, also where upper and lower case are the same.
    """
    from mmcam.explanation import file_name

    def key(name: str) -> bytes:
        return file_name(name).casefold().encode()[-90:]  # 100 are kept, and a question's number is still to come

    found = [path.stem for path in paths]
    depths = range(1, max((len(path.parts) for path in paths), default=0) + 1)
    for last, depth in product(("stem", "name"), depths):
        count = Counter(map(key, found))
        if len(count) == len(paths):
            break
        found = [
            name if count[key(name)] == 1 else "/".join([*path.parts[-depth:-1], getattr(path, last)])
            for name, path in zip(found, paths, strict=True)
        ]
    taken: set[bytes] = set()
    for i, name in enumerate(found):
        readable = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # file names may be any bytes
        found[i] = next(n for k in count_from(1) if key(n := readable if k == 1 else f"{readable}-{k}") not in taken)
        taken.add(key(found[i]))
    return found


def batches(asked: Sequence[tuple[Path, str, str]], size: int, failures: list[str]) -> "Iterator[list[Sample]]":
    """Read pictures when their turn comes; one that cannot be read is a failure and leaves its place to the next."""
    from mmcam.image import read_image
    from mmcam.task import Sample

    samples: list[Sample] = []
    for path, group in groupby(asked, key=lambda one: one[0]):
        try:
            image = read_image(path)
        except UserError as error:
            failures.append(str(error))
            continue
        for _, name, question in group:
            samples.append(Sample(image, name, question))
            if len(samples) == size:
                yield samples
                samples = []
    if samples:
        yield samples
