"""Where the pictures of a dump come from."""

import fsspec
import pytest

from mmcam.config import instantiate
from mmcam.errors import UserError
from mmcam.scenes.draw import draw
from mmcam.scenes.language import is_true
from mmcam.scenes.questions import questions
from mmcam.scenes.source import Scenes
from mmcam.scenes.write import write
from mmcam.sources import Files, Source, choose_source
from mmcam.text import tokenise
from tests.dumps.conftest import picture


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.jpg", "more/c.png", ".hidden/d.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(1).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("photos of 2026")
    return tmp_path


@pytest.mark.parametrize("where", ["photos", "photos/", "{}/photos", "file://{}/photos"])
def test_a_folder(photos, where):
    source = Files(where.format(photos), question="what is it?")
    assert source.ids == ["a.jpg", "b.png", "more/c.png"]
    sample = source.sample(2)
    assert (sample.id, sample.text, sample.image.size) == ("more/c.png", "what is it?", (40, 30))
    assert source.given(2) == ()


def test_a_list_of_paths(photos):
    (photos / "photos" / "list.txt").write_text("# chosen\nb.png\n\nmore/c.png\nhttps://nowhere.invalid/x.png\n")
    source = Files("photos/list.txt")
    assert source.ids == ["b.png", "more/c.png", "https://nowhere.invalid/x.png"]
    assert source.sample(1).image.size == (40, 30)


def test_a_table(photos):
    (photos / "list.csv").write_text('path,id,text,given\nphotos/b.png,one,"what, then?",dog\nphotos/a.jpg,,,\n')
    source = Files("list.csv", question="else?")
    assert source.ids == ["one", "photos/a.jpg"]
    assert [source.sample(i).text for i in (0, 1)] == ["what, then?", "else?"]
    assert [source.given(i) for i in (0, 1)] == [("dog",), ()]


def test_memory():
    files = fsspec.filesystem("memory")
    with files.open("/bucket/pictures/x.png", "wb") as file:
        picture(3).save(file, "PNG")
    with files.open("/bucket/pictures/y.png", "wb") as file:
        file.write(b"no picture")
    source = Files("memory://bucket/pictures")
    assert source.ids == ["x.png", "y.png"]
    assert source.sample(0).image.tobytes() == picture(3).tobytes()
    with pytest.raises(UserError, match=r"'memory://.*y.png'"):
        source.sample(1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "expected a folder, a list or a picture"),
        ("s3x://bucket", None, "expected something that can be opened"),
        ("empty.txt", "\n", "expected pictures, found none"),
        ("no.csv", "picture\nx.png\n", "unknown column of no.csv 'picture'"),
        ("id.csv", "id\nx.png\n", "expected a column 'path'"),
        ("twice.txt", "a.png\na.png\n", "expected each id once, got 'a.png' again"),
        ("bytes.txt", b"\xff\xfe\xfa", "expected a list in UTF-8"),
    ],
)
def test_what_is_no_source(photos, name, content, message):
    if content is not None:
        (photos / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        Files(name)


def test_a_missing_picture_is_that_sample_s_matter(photos):
    (photos / "list.txt").write_text("photos/b.png\nphotos/gone.png\n")
    source = Files("list.txt")
    with pytest.raises(UserError, match="no such file"):
        source.sample(1)
    assert source.sample(0)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("captioning/scenes", "captioning.data.CaptionedScenes"),
        ("vqa/scenes", "vqa.data.AskedScenes"),
        ("classification/scenes", "classification.data.ClassifiedScenes"),
    ],
)
def test_a_split_by_name_is_that_of_the_task_s_package(config, kind):
    source, record = choose_source("scenes:hard", config, {"data.init_args.count": "5"})
    assert record == {"class_path": kind, "init_args": record["init_args"]}
    assert (record["init_args"]["split"], record["init_args"]["count"]) == ("hard", 5)
    assert isinstance(source, Scenes)
    own, record = choose_source("", config, {"data.init_args.count": 3})
    assert record["init_args"]["split"] == "test"
    assert isinstance(instantiate({"data": record}, "data", Source), type(own))


def test_a_yaml_of_a_reader(photos):
    (photos / "data.yaml").write_text("data: {class_path: mmcam.sources.Files, init_args: {where: photos}}\n")
    source, _ = choose_source("data.yaml", "captioning/scenes", {})
    assert len(source) == 3
    (photos / "task.yaml").write_text("task: {class_path: tests.tiny_task.TinyTask}\n")
    with pytest.raises(UserError, match="expected data to go through"):
        choose_source("", "task.yaml", {})
    with pytest.raises(UserError, match=r"unknown data set for .*'scene'"):
        choose_source("scene:test", "captioning/scenes", {})


def test_scenes_are_those_of_their_seed():
    source = Scenes("test", 3, seed=5)
    assert source.ids == ["test-0", "test-1", "test-2"]
    assert source.sample(2).image.tobytes() == draw(source.scene(2))[0].tobytes()
    assert Scenes("test", 3, seed=6).sample(2).image.tobytes() != source.sample(2).image.tobytes()
    with pytest.raises(UserError, match="unknown split"):
        Scenes("tset")


def test_what_is_said_of_scenes_is_true():
    from captioning.data import CaptionedScenes
    from vqa.data import AskedScenes

    source = CaptionedScenes("test", 4)
    for i in range(4):
        (caption,) = source.given(i)
        assert is_true(tokenise(caption), source.scene(i))
    asked = AskedScenes("test", 4, questions_each=2)
    assert asked.ids[:3] == ["test-0-q0", "test-0-q1", "test-1-q0"]
    assert asked.sample(2).text == questions(source.scene(1), 2)[0].text
    assert asked.sample(2).image.tobytes() == source.sample(1).image.tobytes()
    assert len(asked.given(2)) == 1


def test_the_published_formats(tmp_path):
    from captioning.data import CaptionedPictures
    from vqa.data import AskedPictures

    write(tmp_path, "val", 3, seed=4)
    pictures = CaptionedPictures(str(tmp_path), "val")
    assert pictures.ids == [f"scenes_val_{i:012}" for i in (1, 2, 3)]
    assert len(pictures.given(0)) == 5
    assert pictures.sample(1).image.size == (96, 96)
    asked = AskedPictures(str(tmp_path), "val", "scenes", "scenes_{split}_{{:012d}}.png")
    assert asked.ids[0] == "1000"
    sample = asked.sample(0)
    assert sample.text
    assert sample.image.tobytes() == pictures.sample(0).image.tobytes()
    assert len(asked.given(0)) == 1
