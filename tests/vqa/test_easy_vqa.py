import json
import sys

import easy_vqa
import pytest
from PIL import Image

from mmcam.errors import UserError
from vqa.easy_vqa import write_easy_vqa
from vqa.published import VqaV2

SOME = 6  # pictures of each split; there are 4,000 and 1,000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for split in ("train", "test"):
        questions = getattr(easy_vqa, f"get_{split}_questions")()
        paths = getattr(easy_vqa, f"get_{split}_image_paths")()
        few = {image: paths[image] for image in sorted(paths)[:SOME]}
        rows = [row for row in zip(*questions, strict=True) if row[2] in few]
        monkeypatch.setattr(easy_vqa, f"get_{split}_image_paths", lambda few=few: few)
        monkeypatch.setattr(
            easy_vqa, f"get_{split}_questions", lambda rows=rows: tuple(map(list, zip(*rows, strict=True)))
        )
    return write_easy_vqa(tmp_path / "easy")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_reader_of_vqa_v2_reads_it(folder, split):
    notes = folder / "annotations"
    data = VqaV2(
        folder / split,
        notes / f"v2_OpenEnded_easy_{split}_questions.json",
        notes / f"v2_easy_{split}_annotations.json",
        f"easy_{split}_{{:012d}}.png",
    )
    texts, answers, images = getattr(easy_vqa, f"get_{split}_questions")()
    paths = getattr(easy_vqa, f"get_{split}_image_paths")()
    assert len(data.paths) == SOME
    ours = sorted((int(q.id) // 1000, q.question, q.answer) for q in data.asked)
    assert ours == sorted(zip(images, texts, answers, strict=True))
    assert len({question.id for question in data.asked}) == len(texts)
    for question in data.asked:
        theirs = Image.open(paths[int(question.id) // 1000])
        assert Image.open(data.paths[question.picture]).tobytes() == theirs.tobytes()
        assert theirs.size == (64, 64)


def test_annotations_are_those_of_vqa_v2(folder):
    content = json.loads((folder / "annotations" / "v2_easy_train_annotations.json").read_text())
    for annotation in content["annotations"]:
        assert [answer["answer"] for answer in annotation["answers"]] == [annotation["multiple_choice_answer"]] * 10
    assert (content["data_type"], content["data_subtype"]) == ("easy", "train")


def test_the_whole_set_is_what_the_package_says():
    texts, _, images = easy_vqa.get_test_questions()
    assert len(easy_vqa.get_test_image_paths()) == 1000
    assert len(easy_vqa.get_train_image_paths()) == 4000
    assert len(texts) == len(images) > 9000


def test_a_package_that_is_not_installed_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(UserError, match=r"comes with a package of its own: pip install 'mmcam\[easy-vqa\]'"):
        write_easy_vqa(tmp_path)
