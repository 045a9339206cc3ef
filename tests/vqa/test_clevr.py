from pathlib import Path

import pytest

from mmcam.image import read_image
from vqa.clevr import Clevr

CLEVR = Path(__file__).parents[1] / "data" / "annotations" / "clevr"


def test_questions_pictures_and_answers():
    data = Clevr(str(CLEVR))
    assert data.ids == ["0", "1"]
    assert data.sample(1).text == "How many things are to the right of the yellow thing?"
    assert data.sample(1).image.tobytes() == read_image(CLEVR / "images/val/CLEVR_val_000000.png").tobytes()
    assert [data.given(i) for i in (0, 1)] == [("metal",), ("1",)]
    assert len(data.paths) == 1
    assert data.judge({0: ["metal"], 1: []})["exact_match"].tolist() == [1, 0]


def test_nothing_is_known_about_where_things_are():
    data = Clevr(str(CLEVR))
    assert len(data.things(0)) == 0
    assert data.things(0).masks.shape == (0, 320, 480)
    assert data.about(0, ["metal", "rubber"]) == [None, None]
    assert data.human(0) is None


@pytest.mark.parametrize("answer", [True, False, 3, "metal", None])
def test_answers_of_every_json_type(tmp_path, answer):
    import json

    row = {"question_index": 0, "image_filename": "a.png", "question": "?"}
    row |= {} if answer is None else {"answer": answer}
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "CLEVR_test_questions.json").write_text(json.dumps({"questions": [row]}))
    given = Clevr(str(tmp_path), "test").given(0)
    assert given == {"True": ("yes",), "False": ("no",), "3": ("3",), "metal": ("metal",), "None": ()}[str(answer)]
