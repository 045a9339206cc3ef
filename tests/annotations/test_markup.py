import pytest

from mmcam.annotations.markup import read_markup
from mmcam.errors import UserError
from tests.annotated import BOMB

THING = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>9.5</ymax></bndbox>{}</object>"
)
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


@pytest.fixture
def read(tmp_path):
    def written(inner, whole=None):
        (tmp_path / "a.xml").write_text(f"<annotation>{inner}</annotation>" if whole is None else whole)
        return read_markup(tmp_path / "a.xml", "a")

    return written


def test_things_and_size(read):
    found = read(SIZE + THING.format("cat", 1, 7, "<difficult>1</difficult>") + THING.format("dog", 3, 3, ""))
    assert found.size == (30, 40)
    assert [(t.names, t.box, t.difficult) for t in found.things] == [
        (("cat",), (1, 2, 7, 9.5), True),
        (("dog",), (3, 2, 3, 9.5), False),
    ]


def test_parts_are_no_things(read):
    part = "<part><name>head</name><bndbox><xmin>4</xmin><ymin>4</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    (thing,) = read(THING.format("person", 1, 7, part)).things
    assert (thing.names, thing.box) == (("person",), (1, 2, 7, 9.5))
    (thing,) = read(THING.format("person", 1, 7, "").replace("<name>", part + "<name>")).things
    assert (thing.names, thing.box) == (("person",), (1, 2, 7, 9.5))


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_size_may_be_missing(read, size):
    assert read(size).size is None


@pytest.mark.parametrize("name", ["a", "a.jpg", "a.JPEG", "%s", ""])
def test_names_that_fit(read, name):
    assert read(f"<filename>{name}</filename>").things == ()


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("<filename>b.jpg</filename>", "expected 'a', got 'b.jpg'"),
        ("<filename>ab.jpg</filename>", "expected 'a'"),
        ("<object></object>", "object 1: expected a name"),
        (THING.format("cat", 1, 7, "") + "<object><name>b</name></object>", "object 2: expected a bndbox"),
        (THING.format("", 1, 7, ""), "object 1: expected a name"),
        (THING.format("cat", "one", 7, ""), "object 1: expected xmin as a number, got 'one'"),
        (THING.format("cat", "nan", 7, ""), "expected xmin as a number"),
        (THING.format("cat", 8, 7, ""), "expected a box, got x from 8 to 7"),
        (THING.format("cat", 1, 7, "").replace("ymax", "ymix"), "expected ymax as a number, got none"),
        ("<size><width>1e6</width><height>1e6</height></size>", "pixels at most"),
        ("<size><width>5</width></size>", "size: expected height"),
    ],
)
def test_what_is_broken_is_named(read, inner, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read(inner)
    assert "a.xml: " in str(caught.value)


@pytest.mark.parametrize(
    "whole",
    [
        BOMB,
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation><filename>&e;</filename></annotation>',
    ],
)
def test_a_document_type_is_refused_before_anything_grows(read, whole):
    with pytest.raises(UserError, match=r"a\.xml: line \d: expected no document type"):
        read("", whole)


@pytest.mark.parametrize(
    "whole", ["", "<annotation>", "<annotation></b>", "no XML", "<annotation>&e;</annotation>", "<a/><b/>"]
)
def test_what_is_no_whole_xml(read, whole):
    with pytest.raises(UserError, match=r"a\.xml: expected whole XML"):
        read("", whole)


def test_a_missing_and_a_huge_file(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_markup(tmp_path / "b.xml", "b")
    with (tmp_path / "c.xml").open("wb") as file:
        file.truncate(17_000_000)
    with pytest.raises(UserError, match="16,000,000 bytes at most"):
        read_markup(tmp_path / "c.xml", "c")
