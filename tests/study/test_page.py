"""The page as one file: what is in it. How people fare with it: tests/browser/test_study.py."""

import base64
import json

import pytest

from mmcam.errors import UserError
from mmcam.study import Study, export
from mmcam.study.page import page
from tests.report.pages import Reader
from tests.study.studies import study


def read(path):
    return Reader(path.read_text(encoding="utf-8")).page


def test_the_file_holds_all_pictures_and_no_key(folder, tmp_path):
    made = Study.load(folder)
    size = export(made, folder, tmp_path / "page.html")
    assert size == (tmp_path / "page.html").stat().st_size
    found = read(tmp_path / "page.html")
    assert found.islands["study"] == json.loads(json.dumps(made.open_part()))
    files = {name: (folder / "pictures" / name).read_bytes() for trial in made.trials for name in trial.pictures}
    assert {
        name: base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
        for name, url in found.islands["files"].items()
    } == files
    assert "grad_cam" not in found.text
    (policy,) = (tag["content"] for tag in found.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert "connect-src 'none'" in policy
    assert not any(tag.get("src") for tag in found.all("script"))
    again = tmp_path / "again.html"
    export(made, folder, again)
    assert again.read_bytes() == (tmp_path / "page.html").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        export(made, folder, again)


def test_texts_cannot_leave_their_place():
    made = study(4)
    bad = "</script><script>alert(1)</script><b>"
    vars(made).update(title=bad, consent=(bad,))
    text = page(made)
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert Reader(text).page.islands["study"]["title"] == bad


def test_labels_and_groups_have_names():
    for kind in ("discrimination", "words", "trust"):
        found = Reader(page(study(4, kind=kind))).page
        assert found.all("html")[0]["lang"] == "en"
        ids = {tag["id"] for _, tag in found.tags if tag.get("id")}
        for _, tag in found.tags:
            assert tag.get("aria-labelledby", "title") in ids
            assert tag.get("for", "title") in ids | {"text"}
        radios = [tag for tag in found.all("input") if tag.get("type") == "radio"]
        assert [tag["value"] for tag in radios] == (["-2", "-1", "0", "1", "2"] if kind == "trust" else [])
