"""Karpathy's splits of COCO, Flickr8k and Flickr30k (`dataset_coco.json` and its like)."""

from pathlib import Path

from captioning.data import WithInstances
from mmcam.annotations.instances import CocoInstances
from mmcam.annotations.published import Entry, inside, read_object
from mmcam.errors import unknown


class KarpathySplit(WithInstances):
    """The pictures of one or more of Karpathy's splits, with all their sentences.

    Of COCO, val, test *and restval* are pictures of COCO's val2014; models are trained on train+restval. "COCO val" and
    "Karpathy val" are different sets.
    """

    def __init__(self, annotations: str, pictures: str, split: str = "test", instances: str = "") -> None:
        """Read the file.

        Args:
            annotations: `dataset_coco.json`, `dataset_flickr8k.json` or `dataset_flickr30k.json`.
            pictures: Folder of the pictures; for COCO the one with `train2014/` and `val2014/`.
            split: "train", "restval", "val" or "test", or several: "train+restval".
            instances: For COCO, the folder of `instances_train2014.json` and `instances_val2014.json`, so that words
                can be held against things; not given, they cannot.

        Raises:
            UserError: The file is missing or broken, an id stands twice or does not fit, or there is no such split.
        """
        self._annotations, self._folder = instances, Path(pictures)
        content = read_object(Path(annotations))
        images = content.entries("images")
        known = {image.take("split", str) for image in images}
        wanted = split.split("+")
        for name in wanted:
            if name not in known:
                raise unknown(f"split of {annotations}", name, known)
        self._seen: set[tuple[str, object]] = set()
        self.ids: list[str] = []
        self.paths: list[Path] = []
        self.captions: list[list[str]] = []
        self._images: list[tuple[str, int] | None] = []
        for image in images:
            path, sentences = self._picture(image)
            if image.values["split"] in wanted:
                self.ids.append(path.stem)
                self.paths.append(path)
                self.captions.append(sentences)
                coco = "cocoid" in image.values
                self._images.append((image.take("filepath", str), image.take("cocoid", int)) if coco else None)
        self._files: dict[str, CocoInstances] = {}

    def instances(self, number: int) -> tuple[CocoInstances, int] | None:
        """Those of COCO's split that the picture is from."""
        image = self._images[number]
        if not self._annotations or image is None:
            return None
        split, coco = image
        if split not in self._files:
            self._files[split] = CocoInstances(inside(Path(self._annotations), f"instances_{split}.json", "filepath"))
        return self._files[split], coco

    def _picture(self, image: Entry) -> tuple[Path, list[str]]:
        """Check one entry; give its file and its sentences."""
        where = f"{image.file}: {image.place}"
        coco = "filepath" in image.values
        folder = inside(self._folder, image.take("filepath", str), where) if coco else self._folder
        path = inside(folder, image.take("filename", str), where)
        number = image.take("imgid", int)
        self._once(image, "filename", path)
        self._once(image, "imgid", number)
        if "cocoid" in image.values:
            self._once(image, "cocoid", image.take("cocoid", int))
        sentences = image.entries("sentences")
        for sentence in sentences:
            self._once(sentence, "sentid", sentence.take("sentid", int))
            if sentence.take("imgid", int) != number:
                raise sentence.broken(f"expected 'imgid' {number}, as of the picture, got {sentence.values['imgid']}")
        if "sentids" in image.values and image.take("sentids", list) != [s.values["sentid"] for s in sentences]:
            raise image.broken("expected 'sentids' to be those of the sentences, got others")
        if not sentences:
            raise image.broken("expected sentences, got none")
        return path, [sentence.take("raw", str) for sentence in sentences]

    def _once(self, entry: Entry, key: str, value: object) -> None:
        if (key, value) in self._seen:
            raise entry.broken(f"expected each {key} once, got {entry.values[key]} again")
        self._seen.add((key, value))
