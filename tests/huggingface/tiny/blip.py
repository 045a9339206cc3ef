"""BLIP: the captioner and the model for questions have the same configuration and other auto classes."""

from typing import Any

from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedModel,
)

from tests.huggingface.tiny.base import QUESTION, Tiny, drawn
from tests.huggingface.tiny.words import tokenizer


def _parts(kind: type[PreTrainedModel]) -> tuple[PreTrainedModel, BlipProcessor]:
    words = tokenizer(frame=("[CLS]", "[SEP]"), more=("[DEC]",))
    ids = words.convert_tokens_to_ids(["[DEC]", "[SEP]"])
    layer: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = BlipConfig(
        text_config={
            **layer,
            "vocab_size": len(words),
            "max_position_embeddings": 64,
            "bos_token_id": ids[0],
            "sep_token_id": ids[1],
            "eos_token_id": ids[1],
            "pad_token_id": 0,
        },
        vision_config={**layer, "image_size": 24, "patch_size": 6},
        projection_dim=16,
        image_text_hidden_size=16,
        tie_word_embeddings=False,
    )
    config.text_config.tie_word_embeddings = False
    return drawn(kind(config), words), BlipProcessor(BlipImageProcessor(size={"height": 24, "width": 24}), words)


def caption() -> Tiny:
    """BLIP captioning, picture squeezed to 24×24, 4×4 patches after one class token.

    Teacher-forcing: `generate` writes [DEC] (text_config.bos_token_id) over input_ids[:, 0], **in place**, and drops
    the last id ([SEP]); the sequence it returns begins with [DEC] and the prompt and is what forward takes as
    input_ids. attention_mask: ones of that length. Logits cover the text only: position t−1 scores word t.
    """
    model, processor = _parts(BlipForConditionalGeneration)
    return Tiny(model, processor, "caption", "a picture of", (30, 44), "AutoModelForImageTextToText")


def question() -> Tiny:
    """BLIP VQA, question → encoder over the picture → answer decoder.

    Teacher-forcing: input_ids stay the question; the answer goes in as decoder_input_ids beginning with [DEC]
    (text_config.bos_token_id), as `generate` returns it. forward gives **no logits**: hook `text_decoder`, whose output
    has them. forward needs either labels or decoder_input_ids.
    """
    model, processor = _parts(BlipForQuestionAnswering)
    return Tiny(model, processor, "vqa", QUESTION, (30, 44), "AutoModelForVisualQuestionAnswering")
