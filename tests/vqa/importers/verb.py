"""A peer's files through the command line: imported, explained, and not written over."""

from PIL import Image

from mmcam.cli import main


def through_the_verb(peer, files, question, folder, capsys):
    """Import and explain; both must succeed without a word of warning, and a second import must not."""
    out, picture = folder / "out", folder / "COCO_val2014_000000000017.png"
    Image.effect_noise((60, 40), 80).convert("RGB").save(picture)
    command = ["import", peer, *map(str, reversed(files)), "--out", str(out)]
    assert main(command) == 0
    asked = ["--question", question, "--device", "cpu", "--out", str(folder / "maps")]
    assert main(["explain", str(picture), "--config", str(out), *asked]) == 0
    assert capsys.readouterr().err == ""
    assert list((folder / "maps").glob("*.png"))
    before = (out / "model.safetensors").read_bytes()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "expected a folder without a model" in error
    assert error.count("\n") == 1
    assert (out / "model.safetensors").read_bytes() == before
