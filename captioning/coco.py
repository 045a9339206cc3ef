"""Captions as COCO publishes them."""

from pathlib import Path

from mmcam.annotations.published import Entry, inside
from mmcam.errors import UserError
from mmcam.pictures import read_json


class CocoCaptions:
    """The pictures of a COCO captions file and their sentences.

    Attributes:
        ids: The pictures' ids.
        paths: Their files.
        captions: The sentences of each picture, in the file's order.
    """

    def __init__(self, pictures: Path, annotations: Path, limit: int | None = None) -> None:
        """Read the annotations.

        Args:
            pictures: Folder of the pictures.
            annotations: `captions_*.json`.
            limit: Use the first pictures only.

        Raises:
            UserError: The file is missing or broken, an id stands twice or is not known, or a picture has no caption.
        """
        content = Entry.of(read_json(annotations, "images", "annotations"), annotations, "the file")
        by_image: dict[int, list[str]] = {}
        paths: dict[int, Path] = {}
        for image in content.entries("images"):
            number = image.take("id", int)
            if number in by_image:
                raise image.broken(f"expected each id once, got {number} again")
            by_image[number] = []
            paths[number] = inside(pictures, image.take("file_name", str), f"{annotations}: {image.place}")
        seen: set[int] = set()
        for sentence in content.entries("annotations"):
            number = sentence.take("image_id", int)
            if number not in by_image:
                raise sentence.broken(f"image_id: the file has no picture {number}")
            if "id" in sentence.values:
                if sentence.take("id", int) in seen:
                    raise sentence.broken(f"expected each id once, got {sentence.values['id']} again")
                seen.add(sentence.values["id"])
            by_image[number].append(sentence.take("caption", str))
        self.ids = list(paths)[:limit]
        self.paths = [paths[number] for number in self.ids]
        self.captions = [by_image[number] for number in self.ids]
        silent = [path.name for path, texts in zip(self.paths, self.captions, strict=True) if not texts]
        if silent:
            raise UserError(f"{annotations}: {len(silent)} pictures have no caption, the first is {silent[0]}")
