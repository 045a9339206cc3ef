"""Captions as COCO publishes them."""

from collections import defaultdict
from pathlib import Path

from mmcam.errors import UserError
from mmcam.image import read_image
from mmcam.pictures import read_json
from mmcam.scenes.language import captions
from mmcam.scenes.source import Scenes
from mmcam.sources import Source
from mmcam.task import Sample


class CocoCaptions:
    """The pictures of a COCO captions file and their sentences.

    Attributes:
        paths: The pictures' files.
        captions: The sentences of each picture, in the file's order.
    """

    def __init__(self, pictures: Path, annotations: Path, limit: int | None = None) -> None:
        """Read the annotations.

        Args:
            pictures: Folder of the pictures.
            annotations: `captions_*.json`.
            limit: Use the first pictures only.

        Raises:
            UserError: The file is missing or broken, or a picture has no caption.
        """
        content = read_json(annotations, "images", "annotations")
        by_image: dict[int, list[str]] = defaultdict(list)
        try:
            for sentence in content["annotations"]:
                by_image[sentence["image_id"]].append(sentence["caption"])
            images = content["images"][:limit]
            self.paths = [pictures / image["file_name"] for image in images]
            self.captions = [by_image[image["id"]] for image in images]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{annotations}: expected COCO's captions, images with id and file_name and annotations with image_id "
                f"and caption; got an entry that is not whole: {error}"
            ) from error
        silent = [image["file_name"] for image, texts in zip(images, self.captions, strict=True) if not texts]
        if silent:
            raise UserError(f"{annotations}: {len(silent)} pictures have no caption, the first is {silent[0]}")


class CaptionedPictures(Source):
    """The pictures of a COCO captions file, for a dump; what people wrote about them can be explained too."""

    def __init__(self, data: str, split: str) -> None:
        """Read the annotations.

        Args:
            data: Folder with `<split>/` and `annotations/captions_<split>.json`.
            split: Name of the split, such as "val2014".
        """
        root = Path(data)
        self._captioned = CocoCaptions(root / split, root / "annotations" / f"captions_{split}.json")
        self.ids = [path.stem for path in self._captioned.paths]

    def sample(self, number: int) -> Sample:
        """Read one picture."""
        return Sample(read_image(self._captioned.paths[number]), self.ids[number])

    def given(self, number: int) -> tuple[str, ...]:
        """Its captions."""
        return tuple(self._captioned.captions[number])


class CaptionedScenes(Scenes):
    """Scenes of the embedded world, each with a true caption."""

    def given(self, number: int) -> tuple[str, ...]:
        """A caption."""
        return tuple(caption.text for caption in captions(self.scene(number), 1))
