"""What the tests of importers share: copies of the peers' files, tiny CNNs, and what a task makes of given features."""

from pathlib import Path

import numpy as np
import torch

from captioning import CaptioningTask
from mmcam.engine import explain_activations
from mmcam.importing.resnet import ResNet
from mmcam.targets import Targets
from mmcam.task import Batch

FILES = Path(__file__).parents[2] / "data" / "peer_checkpoints"
SHARED = Path(__file__).parents[4] / "shared" / "fixtures" / "peer_checkpoints"
SIZES = {"blocks": [1, 1, 1, 1], "widths": [4, 8, 16, 32], "outs": [32, 32, 32, 2048]}


def expected(folder):
    with np.load(FILES / folder / "expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def tiny_resnet(**options):
    """A ResNet with 2048 channels, as the peers' heads want, and with statistics that differ from the initial ones."""
    torch.manual_seed(5)
    cnn = ResNet(**SIZES, **options)
    for name, value in cnn.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(std=0.1)
    return cnn.eval()


def in_sequence(cnn):
    """The weights as yunjey and sgrvinod save them: `nn.Sequential` of a ResNet's children, which have numbers."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    return {
        f"resnet.{numbers[name.partition('.')[0]]}.{name.partition('.')[2]}": value
        for name, value in cnn.state_dict().items()
    }


def explained(model, activations, caption, task=CaptioningTask):
    """Scores, signed maps and weights of a caption's words (numbers of ours, the end mark too), given features."""
    batch = Batch(torch.zeros(1, 3, 8, 8), ("picture",), ((8, 8),))
    targets = Targets.of([caption], [[model.vocabulary.words[number] for number in caption]])
    (explanation,) = explain_activations(task(model), activations, batch, targets, "grad_cam", keep_weights=True)
    return explanation


def logits(model, activations, caption):
    """Of the next word after the start mark and each of the caption's words but the last."""
    heard = torch.tensor([[1, *caption[:-1]]])
    with torch.no_grad():
        return model.readout(model.states(activations, {}, heard))[0]


def near(a, b, within=1e-5):
    """Equal to 1e-5 of the larger of 1 and the largest number."""
    torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=within * max(1.0, float(b.abs().max())))
