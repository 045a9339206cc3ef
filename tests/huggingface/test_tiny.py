"""The tiny models are what the adapter's tests lean on: they generate, and one forward pass says what generate saw."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from tests.huggingface import tiny

pytestmark = [pytest.mark.filterwarnings(warning) for warning in tiny.UNAVOIDABLE]

built = cache(tiny.build)
CLASSES = [name for name in ("vilt", "vit", "deit", "swin", "convnext", "resnet", "dinov2") if name in tiny.FAMILIES]
SPEAKERS = [name for name in tiny.FAMILIES if name not in CLASSES]
CHATS = [
    *("llava", "llava-next", "llava-onevision", "gemma3", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"),
    *("smolvlm", "idefics3", "internvl", "mllama"),
]
WORDS = 4


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise of that height and width."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def inputs_of(model: tiny.Tiny, seed: int = 0) -> dict[str, Any]:
    """What the processor makes of a picture of noise and the family's prompt; without labels."""
    given = {"text": model.prompt} if model.prompt else {}
    inputs = model.processor(images=picture(model.size, seed), return_tensors="pt", **given)
    return {name: value for name, value in inputs.items() if name != "labels"}


def continued(old: Tensor, length: int, value: int) -> Tensor:
    """The row, filled with `value` up to the length."""
    return torch.cat([old, old.new_full((len(old), length - old.shape[1]), value)], dim=1)


def forced(name: str, inputs: dict[str, Any], sequence: Tensor) -> Float[Tensor, "positions words"]:
    """Logits of one forward pass over the finished sequence, at all positions of it.

    Written family by family, as the builders' docstrings say; the adapter has its own general way.
    """
    model, length = built(name).model, sequence.shape[1]
    if model.config.is_encoder_decoder or name.endswith("-gpt2"):
        return model(**inputs, decoder_input_ids=sequence).logits[0]
    if name == "blip-vqa":
        seen = []
        hook = model.text_decoder.register_forward_hook(lambda module, given, output: seen.append(output.logits))
        model(**inputs, decoder_input_ids=sequence)
        hook.remove()
        return seen[0][0]
    longer = {key: inputs[key] for key in inputs if key not in ("input_ids", "attention_mask")}
    if "token_type_ids" in inputs:
        longer["token_type_ids"] = continued(inputs["token_type_ids"], length, int(name == "paligemma"))
    for key in ("mm_token_type_ids", "image_embeds_position_mask"):
        if key in inputs:
            longer[key] = continued(inputs[key], length, 0)
    if "cross_attention_mask" in inputs:
        old = inputs["cross_attention_mask"]
        longer["cross_attention_mask"] = torch.cat([old, old[:, -1:].expand(-1, length - old.shape[1], -1, -1)], dim=1)
    return model(**longer, input_ids=sequence, attention_mask=torch.ones_like(sequence)).logits[0]


def generated(name: str, inputs: dict[str, Any], words: int = WORDS) -> tuple[Tensor, Float[Tensor, "words tokens"]]:
    """The greedy sequence, and the logits by which each of its words was chosen."""
    copies = {key: value.clone() if isinstance(value, Tensor) else value for key, value in inputs.items()}
    output = built(name).model.generate(
        **copies, max_new_tokens=words, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return output.sequences, torch.cat(output.logits)


@pytest.mark.parametrize("name", SPEAKERS)
@torch.no_grad()
def test_one_forward_pass_over_the_finished_sequence_gives_the_logits_of_generate(name: str) -> None:
    inputs = inputs_of(built(name))
    sequence, chosen = generated(name, inputs)
    assert len(chosen) == WORDS, "the model stopped: special tokens should never be the likeliest"
    logits = forced(name, inputs, sequence)
    torch.testing.assert_close(logits[-WORDS - 1 : -1], chosen, atol=1e-5, rtol=0)
    assert (logits[-WORDS:] - chosen).abs().amax(1).min() > 1e-2, "one position off has to be seen"


@pytest.mark.parametrize("name", SPEAKERS)
@torch.no_grad()
def test_another_picture_changes_the_logits(name: str) -> None:
    inputs = inputs_of(built(name))
    sequence, _ = generated(name, inputs, 2)
    other = inputs_of(built(name), seed=1)
    moved = forced(name, inputs, sequence) - forced(name, other, sequence)
    assert moved[-2:].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("paligemma", "token_type_ids"),  # As if zeros for the answer too: each word sees those that follow.
        ("gemma3", "token_type_ids"),
        ("qwen2.5-vl", "mm_token_type_ids"),
        ("mllama", "cross_attention_mask"),
        ("pix2struct", "attention_mask"),
    ],
)
@torch.no_grad()
def test_an_input_left_out_is_silently_wrong(name: str, key: str) -> None:
    inputs = inputs_of(built(name))
    sequence, chosen = generated(name, inputs)
    logits = forced(name, {other: inputs[other] for other in inputs if other != key}, sequence)
    assert (logits[-WORDS - 1 : -1] - chosen).abs().max() > 1e-2


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_classes_depend_on_the_picture(name: str) -> None:
    model = built(name)
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(0)  # ViLT draws the order of its patches.
        outputs.append(model.model(**inputs_of(model, seed)).logits[0])
    assert outputs[0].shape == (len(model.model.config.id2label),)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CHATS)
def test_the_chat_template_writes_the_prompt(name: str) -> None:
    model = built(name)
    content = [{"type": "image"}, {"type": "text", "text": tiny.QUESTION}]
    prompt = model.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt.split() == model.prompt.split()


@pytest.mark.parametrize("name", tiny.FAMILIES)
@torch.no_grad()
def test_what_is_saved_is_opened_by_the_auto_classes(name: str, tmp_path: Path) -> None:
    import transformers

    model = tiny.save(name, tmp_path)
    opened = getattr(transformers, model.auto).from_pretrained(tmp_path)
    assert type(opened) is type(model.model)
    weights = opened.state_dict()
    for key, value in built(name).model.state_dict().items():
        assert torch.equal(weights[key], value), key
    if isinstance(model.processor, tiny.Pair):
        pictures = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        words = transformers.AutoTokenizer.from_pretrained(tmp_path) if model.processor.tokenizer else None
        processor: Any = tiny.Pair(pictures, words)
    else:
        processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    if name == "pix2struct":  # The number of patches is lost: 2048 by default, whatever preprocessor_config.json says.
        processor.images_kwargs = model.processor.images_kwargs
    expected = inputs_of(model)
    given = {"text": model.prompt} if model.prompt else {}
    inputs = processor(images=picture(model.size), return_tensors="pt", **given)
    for key, value in expected.items():
        torch.testing.assert_close(inputs[key], value, rtol=0, atol=0)


def test_sub_words_spaces_and_placeholders() -> None:
    words = built("llava").processor.tokenizer
    tail = ["<image>", "pi", "##zz", "##a"]
    assert words.tokenize("two dogs, a <image> pizza") == ["t", "##w", "##o", "do", "##gs", ",", "a", *tail]
    assert words.decode(words("a red dog and a pizza").input_ids, skip_special_tokens=True) == "a red dog and a pizza"


def test_building_leaves_the_seed_alone_and_draws_the_same_weights() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = tiny.build("vit-gpt2").model
    assert torch.equal(torch.rand(2), expected)
    for one, other in zip(first.parameters(), tiny.build("vit-gpt2").model.parameters(), strict=True):
        assert torch.equal(one, other)
