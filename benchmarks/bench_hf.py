"""Word maps of Hugging Face's captioners: the tower once and only the head backwards, against the whole model a word.

    python -m benchmarks.bench_hf --threads 1 --words 15 --repeats 3 --out runs/bench/hf

BLIP at its base size (384 px) and ViT-B/16 + GPT-2, random weights. Ours is `mmcam.explain` of a given caption, tower
included. Beside it, what one writes with a hook: forward and backward of the whole model, once a word, with the
gradients of all parameters as they come ("usual"), or with frozen parameters and `autograd.grad` down to the hooked
activations ("frugal"). The maps are compared first, and how often each way runs the tower is counted.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.bench_engine import describe, machine, sayer
from benchmarks.measure import prepare, timed
from captioning.hf import HFCaptioningTask
from mmcam import Batch, Sample, Targets, explain
from mmcam.huggingface.load import Pair

TOLERANCE = 1e-3
"""Largest deviation of a map from the frugal way's, as a share of its largest value."""


@dataclass(frozen=True)
class Work:
    """What all ways explain.

    Attributes:
        task: Ours, around the model.
        batch: One picture.
        targets: A word a token.
        tower: The module whose output is explained.
    """

    task: HFCaptioningTask
    batch: Batch
    targets: Targets
    tower: nn.Module


class Words:
    """Stands for a tokenizer: a benchmark needs none."""

    pad_token_id, eos_token_id, bos_token_id = 0, 1, 2
    all_special_ids = (0, 1, 2)

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:  # noqa: ANN401
        """There are no words."""
        return SimpleNamespace(input_ids=[])


def blip(small: bool) -> nn.Module:
    """BLIP, captioning; about 250 million parameters."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    if not small:
        return BlipForConditionalGeneration(BlipConfig())
    side = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**side, "encoder_hidden_size": 32, "vocab_size": 100, "bos_token_id": 2}
    return BlipForConditionalGeneration(
        BlipConfig(vision_config={**side, "image_size": 32, "patch_size": 8}, text_config=text, projection_dim=16)
    )


def vit_gpt2(small: bool) -> nn.Module:
    """ViT-B/16 and GPT-2 with cross-attention; about 240 million parameters."""
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    side = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = ViTConfig(**side, image_size=32, patch_size=8) if small else ViTConfig()
    words = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100} if small else {}
    text = GPT2Config(**words, bos_token_id=2, eos_token_id=1, is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return VisionEncoderDecoderModel(config=config)


MODELS = {"blip-base": blip, "vit-gpt2": vit_gpt2}


def build(name: str, words: int, seed: int, small: bool) -> Work:
    """Make a model with a picture and a caption."""
    from transformers import BlipImageProcessor, ViTImageProcessor

    torch.manual_seed(seed)
    model = MODELS[name](small).eval()
    side = 32 if small else 384 if name == "blip-base" else 224
    kind = BlipImageProcessor if name == "blip-base" else ViTImageProcessor
    pixels = kind(size={"height": side, "width": side})
    task = HFCaptioningTask(model, Pair(pixels, Words()))
    noise = np.random.RandomState(seed).randint(0, 255, (side, side, 3), np.uint8)
    batch = task.collate([Sample(Image.fromarray(noise), "picture")])
    ids = torch.randint(3, 100, (words,)).tolist()
    targets = Targets.of([ids], [[f"word {number}" for number in range(words)]])
    return Work(task, batch, targets, model.get_submodule(task.layer))


def ours(work: Work) -> Tensor:
    """The maps before ReLU, (r, h, w)."""
    work.task.model.requires_grad_(False)
    (explanation,) = explain(work.task, work.batch, work.targets, "grad_cam")
    return explanation.signed


def by_word(work: Work, frugal: bool) -> Tensor:
    """The whole model forward and backward, once a word."""
    work.task.model.requires_grad_(not frugal)
    maps = []
    for word in range(work.targets.ids.shape[1]):
        kept: list[Tensor] = []

        def keep(module: nn.Module, arguments: object, output: Any) -> None:  # noqa: ANN401
            hidden = output.last_hidden_state
            if frugal:
                hidden = output.last_hidden_state = hidden.detach().requires_grad_()
            else:
                hidden.retain_grad()
            kept.append(hidden)  # noqa: B023

        hook = work.tower.register_forward_hook(keep)
        try:
            y = log_probabilities(work)[0, word]
        finally:
            hook.remove()
        if frugal:
            (gradient,) = torch.autograd.grad(y, kept[0])
        else:
            y.backward()
            gradient = kept[0].grad
            work.task.model.zero_grad()
        maps.append((kept[0].detach() * gradient[:, 1:].mean(1, keepdim=True))[0, 1:].sum(-1))
    side = int(len(maps[0]) ** 0.5)
    return torch.stack(maps).view(-1, side, side)


def log_probabilities(work: Work) -> Tensor:
    """Of the caption's words, by the model itself."""
    ids, model = work.targets.ids, work.task.model
    start = work.batch.inputs.get("input_ids", ids.new_full((1, 1), 2))
    before = torch.cat([start, ids[:, :-1]], 1)
    name = "input_ids" if "input_ids" in work.batch.inputs else "decoder_input_ids"
    logits = model(pixel_values=work.batch.images, **{name: before}).logits
    return logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]


WAYS: dict[str, Callable[[Work], Tensor]] = {
    "ours": ours,
    "frugal": lambda work: by_word(work, True),
    "usual": lambda work: by_word(work, False),
}


def measure(work: Work, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Compare maps, count the tower's runs, then time all ways in a new random order every round."""
    first, runs = {}, {}
    for name, way in WAYS.items():
        count: list[int] = []
        hook = work.tower.register_forward_hook(lambda module, arguments, output, count=count: count.append(1))
        try:
            way(work)  # the first call proves the cut, and warms up
            count.clear()
            first[name] = timed(way, work)
        finally:
            hook.remove()
        runs[name] = len(count)
    expected = first["frugal"][1]
    off = {name: float((maps - expected).abs().max() / expected.abs().max()) for name, (_, maps) in first.items()}
    random, seconds = Random(seed), {name: [] for name in WAYS}
    for _ in range(repeats):
        for name in random.sample(list(WAYS), len(WAYS)):
            seconds[name].append(timed(WAYS[name], work)[0])
    return [{"way": n, "deviation": off[n], "tower": runs[n], "seconds": seconds[n]} for n in WAYS]


def table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Write a Markdown table."""
    lines = [
        f"**{name}**\n",
        "| way | maps differ by | tower runs | seconds | ours is so many times faster |",
        "|---|---:|---:|---:|---:|",
    ]
    own = rows[0]["seconds"]
    for row in rows:
        ratio = statistics.median(other / mine for other, mine in zip(row["seconds"], own, strict=True))
        lines.append(
            f"| {row['way']} | {row['deviation']:.1e} | {row['tower']} | {statistics.median(row['seconds']):.3g} "
            f"| {ratio:.3g} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: Of the command line.

    Returns:
        1 if any maps differ from the whole model's, 0 otherwise.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--words", type=int, default=15, help="words of the caption, a token each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json")
    options = parser.parse_args(arguments)
    prepare(options.threads)
    say, facts, report = sayer(options.out), machine("cpu"), {}
    say(describe(facts, options.seed))
    wrong = False
    for name in options.models:
        rows = report[name] = measure(
            build(name, options.words, options.seed, options.quick), options.repeats, options.seed
        )
        say("\n" + table(f"{name}, {options.words} words", rows))
        wrong |= any(row["deviation"] > TOLERANCE for row in rows)
    if options.out:
        content = {"machine": facts, "options": {k: str(v) for k, v in vars(options).items()}, "models": report}
        options.out.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
