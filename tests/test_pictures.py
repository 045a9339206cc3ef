import json

import pytest
import torch
from PIL import Image

from mmcam.errors import UserError
from mmcam.image import to_tensor
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.pictures import Pictures, frozen_activations, read_json

CPU = torch.device("cpu")


@pytest.fixture
def cnn():
    cnn = SceneCNN(4)
    cnn.size = (32, 48)
    return cnn


@pytest.fixture
def paths(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.new("RGB", (20 + i, 30), (i * 100, 50, 200)).save(file)
    return files


def test_pictures_come_at_the_backbone_s_size_and_normalisation(paths, cnn):
    pictures = Pictures(paths, cnn)
    assert len(pictures) == 3
    for i, file in enumerate(paths):
        assert pictures[i].shape == (3, 32, 48)
        assert torch.equal(pictures[i], to_tensor(Image.open(file), cnn.size, cnn.mean, cnn.std))
    assert pictures[1][0].unique().item() == pytest.approx((100 / 255 - 0.5) / 0.5, abs=1e-6)


def test_a_missing_picture_is_named(cnn, tmp_path):
    with pytest.raises(UserError, match=r"nothing.png"):
        Pictures([tmp_path / "nothing.png"], cnn)[0]


def test_frozen_activations_are_the_trunk_s(paths, cnn):
    pictures = Pictures(paths, cnn)
    cnn.train()
    frozen = frozen_activations(cnn, pictures, CPU)
    assert not cnn.training  # the batch statistics are frozen too
    with torch.no_grad():
        expected, _ = cnn.trunk(torch.stack([pictures[i] for i in range(3)]))
    assert frozen.dtype == torch.float16
    assert frozen.shape == (3, 4, 8, 12)
    assert not frozen.requires_grad
    assert torch.equal(frozen, expected.half())


def test_frozen_activations_of_tensors_in_bfloat16(cnn):
    pictures = [torch.randn(3, 32, 48)] * 65  # more than one batch
    frozen = frozen_activations(cnn, pictures, CPU, amp=True)
    exact = frozen_activations(cnn, pictures, CPU)
    assert frozen.shape == (65, 4, 8, 12)
    torch.testing.assert_close(frozen, exact, rtol=0.1, atol=0.05)


def test_a_json_file_with_its_keys_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [1], "more": "ü"}), encoding="utf-8")
    assert read_json(path, "images") == {"images": [1], "more": "ü"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"a.json is missing; for the embedded world make it with: mmcam scenes --out"),
        ('{"images": [', r"a.json is not whole JSON"),
        ("", r"a.json is not whole JSON"),
        (
            '{"images": []}',
            r"a.json lacks \['annotations'\]; expected an object with the keys \['images', 'annotations'\]",
        ),
        ("[1, 2]", r"a.json lacks \['images', 'annotations'\]"),
        ("3", r"a.json lacks \['images', 'annotations'\]"),
        (b"\xff\xfe", r"a.json is not whole JSON"),
    ],
)
def test_a_json_file_that_is_none_is_refused(tmp_path, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read_json(path, "images", "annotations")
