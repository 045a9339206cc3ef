"""The easy-VQA data set (package `easy-vqa`, MIT, by Victor Zhou) written in VQA v2's format.

4,000 training and 1,000 test pictures of 64 x 64 pixels, one coloured shape each, and their questions. The package says
which shape and colour, through the answers, but not where: there are no boxes or masks to hold maps against.
"""

import json
import shutil
from pathlib import Path

from mmcam.errors import UserError


def write_easy_vqa(folder: Path) -> Path:
    """Copy the pictures and write questions and annotations as VQA v2 publishes them.

    Args:
        folder: Gets `train/`, `test/` and `annotations/`.

    Returns:
        The folder.

    Raises:
        UserError: The package is not installed.
    """
    try:
        import easy_vqa
    except ImportError as error:
        raise UserError("easy-VQA comes with a package of its own: pip install 'mmcam[easy-vqa]'") from error
    splits = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "test": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, (questions, paths) in splits.items():
        (folder / split).mkdir(exist_ok=True)
        for image_id, path in paths().items():
            shutil.copyfile(path, folder / split / f"easy_{split}_{image_id:012d}.png")
        rows = sorted(zip(*questions(), strict=True), key=lambda row: row[2])
        asked, annotations, seen = [], [], {}
        for text, answer, image_id in rows:
            number = seen[image_id] = seen.get(image_id, -1) + 1
            key = {"image_id": image_id, "question_id": image_id * 1000 + number}
            asked.append({**key, "question": text})
            ten = [{"answer": answer, "answer_confidence": "yes", "answer_id": k} for k in range(1, 11)]
            annotations.append({**key, "multiple_choice_answer": answer, "answers": ten})
        head = {"info": {"description": f"easy-VQA, split {split}"}, "data_type": "easy", "data_subtype": split}
        names = {
            f"v2_OpenEnded_easy_{split}_questions": {**head, "questions": asked},
            f"v2_easy_{split}_annotations": {**head, "annotations": annotations},
        }
        for name, content in names.items():
            (folder / "annotations" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
