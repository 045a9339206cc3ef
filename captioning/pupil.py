"""Tiny models of transformers, with random weights: pupils, which learn to describe scenes from nothing.

    VisionEncoderDecoder   CLIP's vision half → GPT-2, which attends to its tokens
    LLaVA                  the same vision half → projector → Llama, which reads the tokens as words

Both get real processors and are written as published checkpoints are; `captioning.hf.HFCaptioningTask` explains the
folder.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from mmcam.errors import unknown
from mmcam.huggingface.load import Pair
from mmcam.scenes.kinds import BY_NAME
from mmcam.scenes.language import PHRASES
from mmcam.scenes.world import SIZE

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

    def take_tower(self, folder: str) -> None:
        """Take over the vision half of a trained VisionEncoderDecoder.

        Args:
            folder: Where it was saved.

        Raises:
            RuntimeError: Its sizes are others.
        """
        from transformers import VisionEncoderDecoderModel

        trained: Any = VisionEncoderDecoderModel.from_pretrained(folder)
        self.tower.load_state_dict(trained.encoder.state_dict())

    def save_pretrained(self, folder: Path) -> None:
        """Write model and processor as published checkpoints are."""
        self.model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        paired = isinstance(self.processor, Pair)
        for part in (self.processor.image_processor, self.tokenizer) if paired else (self.processor,):
            part.save_pretrained(folder)
