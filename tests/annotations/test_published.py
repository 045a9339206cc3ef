import json

import pytest

from mmcam.annotations.published import each_entry, inside, read_lines, read_list, read_object
from mmcam.errors import UserError


@pytest.fixture
def write(tmp_path):
    def written(content):
        path = tmp_path / "a.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


def test_values_and_places(write):
    content = read_object(write({"images": [{"id": 3, "sub": [{"x": 1.5}, {"x": 2}]}]}))
    (image,) = content.entries("images")
    assert image.take("id", int) == 3
    inner = image.entries("sub")
    assert [one.number("x") for one in inner] == [1.5, 2.0]
    assert [content.place, image.place, inner[1].place] == ["the file", "images[0]", "images[0].sub[1]"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "a.json: rows.0.: expected 'id' as int, got none"),
        ({"id": "3"}, "expected 'id' as int, got '3'"),
        ({"id": True}, "expected 'id' as int, got True"),
        ({"id": 3.0}, "expected 'id' as int, got 3.0"),
        ([3], "expected an object, got .3."),
    ],
)
def test_a_missing_or_wrong_value_is_named_with_its_place(write, values, reason):
    with pytest.raises(UserError, match=reason):
        read_object(write({"rows": [values]})).entries("rows")[0].take("id", int)


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf")])
def test_what_is_no_number(write, value):
    with pytest.raises(UserError, match="expected 'x' as a number"):
        read_object(write({"x": value})).number("x")


@pytest.mark.parametrize("size", [(0, 5), (-1, 5), (100_000, 100_000)])
def test_what_is_no_size(write, size):
    with pytest.raises(UserError, match="expected a size"):
        read_object(write(dict(zip(("height", "width"), size, strict=True)))).size()


@pytest.mark.parametrize("content", ['{"a": [1, 2', "", "{", "[" * 100_000])
@pytest.mark.parametrize("read", [read_object, read_list, lambda path: list(each_entry(path))])
def test_what_is_no_whole_json(write, read, content):
    with pytest.raises(UserError, match=r"a\.json"):
        read(write(content))


def test_a_file_that_is_missing_or_no_text(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt: there is no such file"):
        read_lines(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"b\.txt: expected text in UTF-8"):
        read_lines(tmp_path / "b.txt")


@pytest.mark.parametrize("text", ["[]", " [ ] ", '[{"a": 1}]', '\n[ {"a": 1} ,\n {"a": [2, {"b": "],["}]}\t]\n'])
def test_one_by_one_is_what_all_at_once_gives(write, text):
    path = write(text)
    assert [(e.values, e.place) for e in each_entry(path)] == [(e.values, e.place) for e in read_list(path)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a": 1}', "comma or the list's end"),
        ('[{"a": 1} {"a": 2}]', "comma"),
        ('[{"a": 1}, {"a"', r"\[1\]"),
        ('[{"a": 1}, 3]', "expected an object, got 3"),
        ('{"a": 1}', "expected a list"),
    ],
)
def test_one_by_one_says_where_the_file_breaks(write, text, reason):
    with pytest.raises(UserError, match=reason):
        list(each_entry(write(text)))


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/etc/passwd", "", "..", "C:\\a.png", "a\\..\\b", "a\0b"]
)
def test_names_that_lead_elsewhere(tmp_path, name):
    with pytest.raises(UserError, match=r"x\.json: row 3: expected the name of a file in .*, which leads elsewhere"):
        inside(tmp_path, name, "x.json: row 3")


def test_names_inside(tmp_path):
    assert inside(tmp_path, "val/a..b.png", "") == tmp_path / "val" / "a..b.png"
