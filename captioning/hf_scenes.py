"""Tiny models of transformers that learn to describe scenes from nothing, so that the adapter's maps can be judged.

    VisionEncoderDecoder   CLIP's vision half → GPT-2, which attends to its tokens
    LLaVA                  the same vision half → projector → Llama, which reads the tokens as words

Both get real processors and are written as published checkpoints are; `captioning.hf.HFCaptioningTask` explains the
folder. LLaVA's tower begins where the other model's ended, as published ones begin with a trained tower.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from captioning.data import CaptionedScenes
from captioning.hf import HFCaptioningTask
from mmcam.errors import UserError, unknown
from mmcam.huggingface.load import Pair
from mmcam.scenes.draw import draw
from mmcam.scenes.kinds import BY_NAME, NAMES
from mmcam.scenes.language import PHRASES, captions, is_true
from mmcam.scenes.world import SIZE, Scene, compose
from mmcam.task import Sample
from mmcam.training import Recipe, Steps

__all__ = ["KINDS", "FewKinds", "HFScenesRecipe", "Pupil", "PupilTask", "build", "vocabulary"]

KINDS = (
    *("dog", "elephant", "zebra", "pizza", "banana", "broccoli"),
    *("car", "airplane", "chair", "umbrella", "clock", "book"),
)
"""What is seen in a world of few kinds, unless other names are given."""

SPECIAL = ("[PAD]", "[UNK]", "<s>", "</s>", "<image>")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)
MODELS = ("vision-encoder-decoder", "llava")


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


def vocabulary(kinds: Sequence[str] = KINDS) -> list[str]:
    """All tokens: special ones, those of the chat template, the words of captions."""
    nouns = [noun for kind in kinds for noun in (kind, BY_NAME[kind].plural)]
    phrases = [word for phrase in chain(*PHRASES.values()) for word in phrase.split()]
    return list(dict.fromkeys([*SPECIAL, "user", "assistant", "a", "an", "and", *phrases, *nouns]))


def build(kind: str, kinds: Sequence[str] = KINDS, width: int = 128, layers: int = 4, patch: int = 12) -> "Pupil":
    """Make a model with weights as transformers draws them, and its processor.

    Args:
        kind: "vision-encoder-decoder" or "llava".
        kinds: The names that it can say.
        width: Channels of all its parts.
        layers: Of the vision half; the language half has two.
        patch: Side of a patch in pixels.
    """
    import transformers as hf

    words = _tokenizer(vocabulary(kinds))
    side = {"height": SIZE, "width": SIZE}
    half = [0.5, 0.5, 0.5]
    eye = hf.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=side, image_mean=half, image_std=half)
    sees = hf.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        image_size=SIZE,
        patch_size=patch,
    )
    marks = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    if kind == "llava":
        text = hf.LlamaConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=2,
            num_attention_heads=width // 32,
            max_position_embeddings=256,
            **marks,
        )
        places = (SIZE // patch) ** 2
        # Its last layer is read: published ones leave the last of 24 out, here it would be one of four.
        config = hf.LlavaConfig(
            vision_config=sees,
            text_config=text,
            image_token_index=words.convert_tokens_to_ids("<image>"),
            image_seq_length=places,
            vision_feature_layer=-1,
        )
        processor = hf.LlavaProcessor(
            eye,
            words,
            patch_size=patch,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=TEMPLATE,
        )
        return Pupil(hf.LlavaForConditionalGeneration(config), processor)
    if kind != "vision-encoder-decoder":
        raise unknown("kind of model", kind, MODELS)
    text = hf.GPT2Config(
        vocab_size=len(words),
        n_positions=64,
        n_embd=width,
        n_layer=2,
        n_head=width // 32,
        add_cross_attention=True,
        **marks,
    )
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        sees, text, decoder_start_token_id=words.bos_token_id, **marks
    )
    model = hf.VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=words.bos_token_id, **marks)
    return Pupil(model, Pair(eye, words))


def _tokenizer(tokens: Sequence[str]) -> Any:  # noqa: ANN401
    """Whole words between spaces."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {token: number for number, token in enumerate(tokens)}
    words = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", numbers["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="right",
        model_max_length=256,
    )


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


class Pupil(nn.Module):
    """A model and its processor, which are saved together.

    Attributes:
        model: The model of transformers.
        processor: Its processor, or an image processor and a tokenizer.
    """

    def __init__(self, model: nn.Module, processor: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.model, self.processor = model, processor
        self.tokenizer = processor.tokenizer
        self.prompt: list[int] = []
        if not isinstance(processor, Pair):
            said = [{"role": "user", "content": [{"type": "image"}]}]
            text = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
            self.prompt = processor(images=[Image.new("RGB", (SIZE, SIZE))], text=[text]).input_ids[0]

    @property
    def tower(self) -> nn.Module:
        """The vision half."""
        model: Any = self.model
        return model.model.vision_tower if self.prompt else model.encoder

    def forward(self, pixels: Float[Tensor, "b 3 h w"], texts: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Compute the logits of every token of texts, given those before it."""
        if not self.prompt:
            start = torch.full_like(texts[:, :1], self.tokenizer.bos_token_id)
            return self.model(pixel_values=pixels, decoder_input_ids=torch.cat([start, texts[:, :-1]], 1)).logits
        prompt = torch.tensor(self.prompt, device=texts.device).expand(len(texts), -1)
        ids = torch.cat([prompt, texts], 1)[:, :-1]
        return self.model(pixel_values=pixels, input_ids=ids, logits_to_keep=texts.shape[1]).logits

    def save_pretrained(self, folder: Path) -> None:
        """Write model and processor as published checkpoints are."""
        self.model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        paired = isinstance(self.processor, Pair)
        for part in (self.processor.image_processor, self.tokenizer) if paired else (self.processor,):
            part.save_pretrained(folder)


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
        try:
            pupil = build(self.kind, self.world["kinds"], **self.options)
        except TypeError as error:
            raise UserError(f"options: {self.options} are none of a tiny model's: {error}") from error
        if self.start:
            from transformers import VisionEncoderDecoderModel

            if not (Path(self.start) / "config.json").exists():
                raise UserError(f"start: expected the folder of a trained VisionEncoderDecoder, got {self.start!r}")
            trained: Any = VisionEncoderDecoderModel.from_pretrained(self.start)
            try:
                pupil.tower.load_state_dict(trained.encoder.state_dict())
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"start: {self.start} is of other options than {self.options}: {reason}") from error
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
