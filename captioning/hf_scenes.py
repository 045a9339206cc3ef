"""A world of few kinds, and a recipe by which tiny models of transformers learn to describe it.

So the adapter's maps can be judged. LLaVA's tower begins where the other model's ended, as published ones begin with a
trained tower.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from captioning.data import CaptionedScenes
from captioning.hf import HFCaptioningTask
from captioning.pupil import KINDS, Pupil, build
from mmcam.errors import UserError, unknown
from mmcam.scenes.draw import draw
from mmcam.scenes.kinds import NAMES
from mmcam.scenes.language import captions, is_true
from mmcam.scenes.world import Scene, compose
from mmcam.task import Sample
from mmcam.training import Recipe, Steps
from mmcam.training.options import making, starting

__all__ = ["FewKinds", "HFScenesRecipe", "PupilTask"]


class FewKinds(CaptionedScenes):
    """Scenes of one or two things of different kinds out of a few, which even a transformer learns in minutes."""

    def __init__(
        self, split: str = "test", count: int = 1000, seed: int = 0, kinds: Sequence[str] = KINDS, least: int = 1
    ) -> None:
        """Name the scenes.

        Args:
            split: "train", "val" or "test".
            count: How many.
            seed: The world's.
            kinds: Names of what there is, two at least.
            least: Things in a picture: so many, or two.
        """
        super().__init__(split, count, seed)
        if odd := [kind for kind in kinds if kind not in NAMES]:
            raise unknown("kind of things", odd[0], NAMES)
        if len(set(kinds)) < 2 or least not in (1, 2):
            raise UserError(f"expected two kinds at least and one or two things, got {list(kinds)} and {least}")
        self.kinds, self.least = tuple(kinds), least

    def scene(self, index: int) -> Scene:
        """The layout of one picture."""
        key = f"{self.seed}/{self.split}/few/{index}"
        random = Random(f"{key}/kinds")
        # As many pairs as single things would teach names well, but relations slowly.
        count = max(self.least, random.choice((1, 2, 2)))
        return compose(key, random.sample(self.kinds, count), self._aspects)


class PupilTask(HFCaptioningTask):
    """A tiny model that was trained here, explained as any other; where it is not yet, that is told."""

    def __init__(self, model: str, config: str) -> None:
        """Open the folder.

        Args:
            model: The folder that training wrote.
            config: Name of the configuration by which it is trained.

        Raises:
            UserError: It is not there.
        """
        if not (Path(model) / "model.safetensors").exists():
            raise UserError(
                f"{model} is not here; train it in some minutes: "
                f"mmcam train --config {config} --out {model} --threads 1"
            )
        super().__init__(model)


class HFScenesRecipe(Recipe):
    """Train a tiny model by teacher forcing, on scenes that are drawn anew in every epoch."""

    def __init__(
        self,
        kind: str = "vision-encoder-decoder",
        kinds: Sequence[str] = KINDS,
        epochs: int = 20,
        pictures: int = 4096,
        batch_size: int = 32,
        rate: float = 1e-3,
        seed: int = 0,
        start: str | None = None,
        options: dict[str, Any] | None = None,
        judged: int = 128,
        steps: Steps | None = None,
    ) -> None:
        """Name model and hyperparameters.

        Args:
            kind: "vision-encoder-decoder" or "llava".
            kinds: Names of what there is to see.
            epochs: Each has other pictures.
            pictures: An epoch.
            batch_size: Pictures a step.
            rate: Highest learning rate.
            seed: Of weights, order and the world.
            start: Folder of a trained VisionEncoderDecoder of the same options, whose vision half is taken over.
            options: More arguments of `build`: width, layers, patch.
            judged: So many validation pictures are described after each epoch.
            steps: The optimiser, and how the rate changes.
        """
        self.kind, self.epochs, self.pictures, self.batch_size = kind, epochs, pictures, batch_size
        self.rate, self.seed, self.start, self.options = rate, seed, start, options or {}
        self.judged, self.steps = judged, steps or Steps(decay=0.05, clip=1.0)
        self.world = {"kinds": list(kinds)}
        self._epoch = 1

    def build(self) -> nn.Module:
        """A random model; its tower a trained one if there is one to start from."""
        with making("a tiny model's", self.options):
            pupil = build(self.kind, self.world["kinds"], **self.options)
        if self.start:
            if not (Path(self.start) / "config.json").exists():
                raise UserError(f"start: expected the folder of a trained VisionEncoderDecoder, got {self.start!r}")
            with starting(self.start, self.options):
                pupil.take_tower(self.start)
        self._pupil = pupil
        return pupil

    def examples(self, model: nn.Module, device: torch.device) -> Dataset[Any]:
        """Pictures and one caption each, of the epoch that has begun."""
        return _Described(self, "train", self.pictures)

    def begin(self, model: nn.Module, epoch: int) -> None:
        """Note the epoch, which has its own pictures."""
        self._epoch = epoch

    def collate(self, examples: Sequence[tuple[Image.Image, str]]) -> tuple[Tensor, Tensor]:
        """Let the processor make pixels, and the tokenizer numbers; every text ends with its mark."""
        words = self._pupil.tokenizer
        pixels = self._pupil.processor.image_processor(images=[image for image, _ in examples], return_tensors="pt")
        texts = [[*words(text, add_special_tokens=False).input_ids, words.eos_token_id] for _, text in examples]
        longest = max(map(len, texts))
        ids = torch.tensor([row + [words.pad_token_id] * (longest - len(row)) for row in texts])
        return pixels["pixel_values"], ids

    def loss(self, model: nn.Module, batch: tuple[Tensor, Int[Tensor, "b t"]]) -> Tensor:
        """Mean negative log-probability of a word, the end mark included."""
        pixels, texts = batch
        logits = model(pixels, texts)
        return cross_entropy(logits.flatten(0, 1).float(), texts.flatten(), ignore_index=0)

    def weight(self, batch: tuple[Tensor, Int[Tensor, "b t"]]) -> float:
        """Words."""
        return float((batch[1] > 0).sum())

    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Validation loss, and the share of captions that are true."""
        assert isinstance(model, Pupil)
        data = _Described(self, "val", self.judged)
        examples = [data[i] for i in range(self.judged)]
        task = HFCaptioningTask(model.model, model.processor)
        true = total = 0.0
        for first in range(0, self.judged, 64):
            some = examples[first : first + 64]
            with torch.no_grad():
                pixels, texts = self.collate(some)
                total += float(self.loss(model, (pixels.to(device), texts.to(device)))) * len(some)
                batch = task.collate([Sample(image, str(i)) for i, (image, _) in enumerate(some)]).to(device)
                said = task.predict(task.trunk(batch), batch).words
            true += sum(is_true(row, data.world.scene(first + i)) for i, row in enumerate(said))
        return {"val_loss": total / self.judged, "true_captions": true / self.judged}


class _Described(Dataset[tuple[Image.Image, str]]):
    """Pictures of a split with a caption each; of "train" others in every epoch."""

    def __init__(self, recipe: HFScenesRecipe, split: str, count: int) -> None:
        self.recipe, self.count = recipe, count
        self.world = FewKinds(split, max(count, 1), recipe.seed, recipe.world["kinds"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        first = (self.recipe._epoch - 1) * self.count if self.world.split == "train" else 0
        scene = self.world.scene(first + index)
        return draw(scene)[0], captions(scene, 1)[0].text
