"""GIT: the picture's tokens stand before the text in one decoder."""

from typing import Any

from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

from tests.huggingface.tiny.base import Tiny, drawn
from tests.huggingface.tiny.words import tokenizer


def caption() -> Tiny:
    """GIT, 24×24 after a centre crop, 4×4 patches after one class token.

    Teacher-forcing: input_ids as `generate` returns them, attention_mask ones of that length. The processor ends the
    prompt with [SEP], which is also the end: hand the prompt over without it (add_special_tokens=False and [CLS]
    before). Logits **begin with the 17 image positions**: slice the last T; position t−1 scores word t.
    """
    words = tokenizer(frame=("[CLS]", "[SEP]"))
    layer: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = GitConfig(
        **layer,
        vision_config={**layer, "image_size": 24, "patch_size": 6},
        vocab_size=len(words),
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        bos_token_id=words.cls_token_id,
        eos_token_id=words.sep_token_id,
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    processor = GitProcessor(pictures, words)
    return Tiny(drawn(GitForCausalLM(config), words), processor, "caption", "", (30, 44), "AutoModelForCausalLM")
