"""Write scenes as a data set in the published formats: COCO captions, COCO instances, VQA v2, and PNG pictures.

    <folder>/<split>/scenes_<split>_%012d.png
    <folder>/annotations/captions_<split>.json                        COCO captions
    <folder>/annotations/instances_<split>.json                       COCO instances, masks as uncompressed RLE
    <folder>/annotations/v2_OpenEnded_scenes_<split>_questions.json   VQA v2 questions
    <folder>/annotations/v2_scenes_<split>_annotations.json           VQA v2 annotations, ten equal answers

The keys are those of the published files. Two more say what a word is about: every caption has `words` and `about` (for
each word a list of annotation ids in the instances file), every VQA annotation has `about` and `form`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from mmcam.scenes.draw import aspects, draw
from mmcam.scenes.kinds import KINDS, NAMES
from mmcam.scenes.language import captions
from mmcam.scenes.questions import questions
from mmcam.scenes.world import SIZE, Scene, make_scene

SPLITS = ("train", "val", "test", "hard")


def scenes(seed: int, split: str, count: int, start: int = 0) -> Iterator[Scene]:
    """Yield the scenes of a split, in order."""
    sizes = aspects()
    return (make_scene(seed, split, index, sizes) for index in range(start, start + count))


def write(
    folder: Path, split: str, count: int, *, seed: int = 0, captions_each: int = 5, questions_each: int = 12
) -> Path:
    """Write one split of a world.

    Args:
        folder: Where to write; made if it is missing.
        split: "train", "val", "test" or "hard".
        count: Number of pictures.
        seed: The world's seed.
        captions_each: Captions a picture.
        questions_each: Questions a picture at most.

    Returns:
        The folder.
    """
    pictures, annotations = folder / split, folder / "annotations"
    pictures.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(exist_ok=True)
    images, instances, sentences, asked, answers = [], [], [], [], []
    for image_id, scene in enumerate(tqdm(scenes(seed, split, count), total=count, desc=f"scenes {split}"), start=1):
        picture, masks = draw(scene)
        name = f"scenes_{split}_{image_id:012d}.png"
        picture.save(pictures / name)
        images.append({"id": image_id, "file_name": name, "height": SIZE, "width": SIZE})
        about = [len(instances) + 1 + i for i in range(len(scene.things))]
        for thing, mask, identity in zip(scene.things, masks, about, strict=True):
            instances.append(_instance(identity, image_id, thing.kind, mask))
        for caption in captions(scene, captions_each):
            sentences.append(
                {
                    "id": len(sentences) + 1,
                    "image_id": image_id,
                    "caption": caption.text,
                    "words": caption.words,
                    "about": [[about[i] for i in things] for things in caption.about],
                }
            )
        for number, question in enumerate(questions(scene, questions_each)):
            question_id = image_id * 1000 + number
            asked.append({"image_id": image_id, "question": question.text, "question_id": question_id})
            kind = "yes/no" if question.answer in ("yes", "no") else "number" if question.answer.isdigit() else "other"
            answers.append(
                {
                    "question_id": question_id,
                    "image_id": image_id,
                    "question_type": " ".join(question.text.split()[:2]),
                    "answer_type": kind,
                    "multiple_choice_answer": question.answer,
                    "answers": [
                        {"answer": question.answer, "answer_confidence": "yes", "answer_id": k} for k in range(1, 11)
                    ],
                    "about": [about[i] for i in question.about],
                    "form": question.form,
                }
            )
    info = {"description": f"mmcam scenes, seed {seed}, split {split}", "version": "1.0"}
    licences = [{"id": 1, "name": "CC BY-SA 4.0 (pictures made of OpenMoji)", "url": "https://openmoji.org"}]
    categories = [{"id": i, "name": kind.name, "supercategory": kind.group} for i, kind in enumerate(KINDS, start=1)]
    head = {"info": info, "licenses": licences}
    vqa = {**head, "data_type": "scenes", "data_subtype": split}
    files: dict[str, dict[str, Any]] = {
        f"captions_{split}": {**head, "images": images, "annotations": sentences},
        f"instances_{split}": {**head, "images": images, "annotations": instances, "categories": categories},
        f"v2_OpenEnded_scenes_{split}_questions": {**vqa, "task_type": "Open-Ended", "questions": asked},
        f"v2_scenes_{split}_annotations": {**vqa, "annotations": answers},
    }
    for name, content in files.items():
        (annotations / f"{name}.json").write_text(json.dumps(content))
    return folder


def _instance(identity: int, image_id: int, kind: str, mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """One entry of COCO instances; the box is that of the visible pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": identity,
        "image_id": image_id,
        "category_id": NAMES.index(kind) + 1,
        "segmentation": {"counts": _run_lengths(mask), "size": list(mask.shape)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "iscrowd": 0,
    }


def _run_lengths(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's uncompressed run-length code: column by column, the first run counts zeros."""
    flat = np.concatenate([[False], mask.flatten(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
