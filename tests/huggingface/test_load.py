"""Folders whose configuration is not that of their weights."""

import json
import resource

import pytest
import torch

from mmcam import UserError
from mmcam.huggingface.load import _count, pretrained, pretrained_classifier
from tests.huggingface import tiny

pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]


def changed(folder, name, **values):
    """A tiny model's folder with other values in the configuration of one of its parts."""
    tiny.save(name, folder)
    config = json.loads((folder / "config.json").read_text())
    for key, value in values.items():
        *parts, last = key.split("__")
        inner = config
        for part in parts:
            inner = inner[part]
        inner[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("vit-gpt2", {"decoder__vocab_size": 10**8}),
        ("llava", {"text_config__num_hidden_layers": 300, "text_config__intermediate_size": 2**17}),
        ("vit", {"intermediate_size": 10**9}),
    ],
)
def test_a_configuration_that_asks_for_a_large_model_is_compared_first(name, values, tmp_path):
    """They take 8 GB and more, as transformers makes room for what does not fit the file before it says so."""
    load = pretrained_classifier if name == "vit" else pretrained
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"in the files, which have \d+ MiB, got one of [\d.]+ billion weights"):
        load(changed(tmp_path, name, **values))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # in KiB


def test_a_model_that_would_be_random_is_refused(tmp_path):
    """Thirty of thirty-two layers are not in the file."""
    with pytest.raises(UserError, match=r"are missing and would be random; is its config.json another model's"):
        pretrained(changed(tmp_path, "llava", text_config__num_hidden_layers=32))


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_models_can_be_held_against_their_files(name):
    """A model that cannot be made without numbers would pass unseen."""
    model = tiny.build(name).model
    state = torch.get_rng_state()
    assert _count(type(model), model.config) == sum(p.numel() for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
