from pathlib import Path

import pytest

from mmcam.errors import UserError
from mmcam.image import find_images


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of pictures and other things, and the working directory beside it."""
    for name in (
        "b.JPG",
        "a.png",
        "notes.txt",
        "deep/down/c.webp",
        "deep/a.gif",
        ".hidden.png",
        ".cache/d.png",
        "._a.png",
    ):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def names(found):
    return [path.as_posix() for path in found]


def complaint(*arguments):
    with pytest.raises(UserError) as caught:
        find_images(arguments)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)
    return str(caught.value)


def test_a_folder_gives_its_pictures_recursively_and_sorted(photos):
    expected = ["photos/a.png", "photos/b.JPG", "photos/deep/a.gif", "photos/deep/down/c.webp"]
    assert names(find_images(["photos"])) == expected
    assert names(find_images(["photos/"])) == expected
    assert names(find_images(["."])) == expected
    absolute = photos.resolve()
    assert find_images([str(absolute)]) == [absolute.parent / name for name in expected]


def test_files_are_kept_as_named_and_in_order(photos):
    assert names(find_images(["photos/b.JPG", "photos/a.png"])) == ["photos/b.JPG", "photos/a.png"]
    # Named outright, a file is the user's choice: reading it will tell what is wrong.
    assert names(find_images(["photos/notes.txt", "photos/.hidden.png"])) == ["photos/notes.txt", "photos/.hidden.png"]


def test_globs(photos):
    assert names(find_images(["photos/*.png"])) == ["photos/a.png"]
    assert names(find_images(["photos/**/*.[gw]*"])) == ["photos/deep/a.gif", "photos/deep/down/c.webp"]
    assert names(find_images(["photos/?.*"])) == ["photos/a.png", "photos/b.JPG"]
    assert names(find_images([f"{photos.resolve()}/*.png"])) == [f"{photos.resolve()}/a.png"]
    # A folder that a glob matches gives what is in it, as from a shell.
    assert names(find_images(["photos/d*"])) == ["photos/deep/a.gif", "photos/deep/down/c.webp"]


def test_globs_from_below(photos, monkeypatch):
    monkeypatch.chdir("photos/deep")
    assert names(find_images(["../*.png"])) == ["../a.png"]


def test_hidden_files_are_found_only_when_named(photos):
    assert names(find_images(["photos/.cache"])) == ["photos/.cache/d.png"]
    assert names(find_images(["photos/.cache/*.png"])) == ["photos/.cache/d.png"]


def test_duplicates_are_given_once_at_their_first_place(photos):
    found = find_images(["photos/deep/a.gif", "photos", "photos/*.png", str(photos.resolve() / "b.JPG")])
    assert names(found) == ["photos/deep/a.gif", "photos/a.png", "photos/b.JPG", "photos/deep/down/c.webp"]


def test_a_file_whose_name_looks_like_a_glob(photos):
    (photos / "a[1].png").touch()
    assert names(find_images(["photos/a[1].png"])) == ["photos/a[1].png"]


def test_home(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.resolve()))
    assert find_images(["~/*.png"]) == [photos.resolve() / "a.png"]


def test_what_is_missing_is_named(photos):
    assert "'photos/bb.JPG'" in complaint("photos/a.png", "photos/bb.JPG")
    assert "did you mean 'b.JPG'" in complaint("photos/bb.JPG")
    assert "'nowhere'" in complaint("nowhere")
    assert "no such file" in complaint("zero\0byte")
    assert "'photos/*.bmp'" in complaint("photos/a.png", "photos/*.bmp")


def test_nothing_found(photos):
    assert "'empty'" in complaint("empty")
    assert "none" in complaint("photos/a.png", "empty")
    assert "1 of another kind" in complaint("photos/*.txt")
    assert "got none" in complaint()
    assert "got ''" in complaint("")
    assert "glob" in complaint("photos/**.png")
