"""Kosmos-2: a CLIP tower, whose places are read by 64 learnt queries; these stand in the text."""

from transformers import CLIPImageProcessor, Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

from tests.huggingface.tiny.base import Tiny, drawn
from tests.huggingface.tiny.words import tokenizer


def kosmos2() -> Tiny:
    """Kosmos-2: shorter side 24, centre cropped, 4×4 patches after one class token.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length, and
    image_embeds_position_mask (1 at the 64 places for queries) continued by **zeros**; logits cover all positions. The
    64 queries have no grid: explain the tower. Their ids in input_ids are placeholders (2 to 65, words like any other).
    """
    words = tokenizer()
    pictures = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    processor = Kosmos2Processor(pictures, words, num_patch_index_tokens=16)
    config = Kosmos2Config(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 6,
        },
        text_config={
            "vocab_size": len(words),
            "max_position_embeddings": 128,
            "embed_dim": 16,
            "layers": 2,
            "ffn_dim": 32,
            "attention_heads": 2,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "pad_token_id": 0,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "tie_word_embeddings": False,
        },
        latent_query_num=64,
        tie_word_embeddings=False,
    )
    model = drawn(Kosmos2ForConditionalGeneration(config), words)
    return Tiny(model, processor, "caption", "<grounding> a picture of", (30, 44), "AutoModelForImageTextToText")
