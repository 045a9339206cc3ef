"""ViLT: one encoder over the question's tokens and the picture's patches, and a classifier of answers."""

from transformers import ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

from tests.huggingface.tiny.base import QUESTION, Tiny, drawn
from tests.huggingface.tiny.words import tokenizer

ANSWERS = ("yes", "no", "red", "blue", "cat", "dog", "1", "2")


def question() -> Tiny:
    """ViLT VQA; the picture keeps its shape (shorter side 24, sides cut to multiples of 8), patches of 8.

    No text to force: logits are `config.id2label`'s answers. After the question's tokens come one class token and the
    patches **in a random order drawn at each call** from the global generator (seed it before each forward).
    pixel_mask says what of a padded batch is picture. Nothing reads the last layer's patch tokens: gradient zero.
    """
    words = tokenizer(frame=("[CLS]", "[SEP]"))
    config = ViltConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(ANSWERS)),
        label2id={answer: index for index, answer in enumerate(ANSWERS)},
    )
    processor = ViltProcessor(ViltImageProcessor(size={"shortest_edge": 24}, size_divisor=8), words)
    model = drawn(ViltForQuestionAnswering(config))
    return Tiny(model, processor, "vqa", QUESTION, (30, 44), "AutoModelForVisualQuestionAnswering")
