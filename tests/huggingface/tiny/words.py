"""The one small tokenizer that all tiny families share: WordPiece over the words of simple scenes."""

from string import ascii_lowercase, digits

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>")
"""Ids 0 to 5, in every family."""

_WHOLE = (
    *("a", "the", "red", "blue", "green", "square", "disc", "cat", "table", "picture", "is", "what", "where", "how"),
    *("many", "colour", "left", "right", "of", "on", "and", "above", "below", "yes", "no", "user", "answer"),
    *("does", "describe", "image", "with", "in", "there"),
)
# "dog" is no word of its own: it is written "do ##g", "dogs" "do ##gs" and "pizza" "pi ##zz ##a".
_PIECES = ("do", "##g", "##gs", "pi", "##zz")
_SIGNS = (".", ",", "?", ":", "'", "-")


def vocabulary() -> list[str]:
    """All tokens that every family has, in the order of their ids.

    Letters and digits are tokens too, so that any English word can be written.
    """
    letters = [*ascii_lowercase, *digits]
    tokens = [*SPECIAL, *_WHOLE, *_PIECES, *_SIGNS, *letters, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys(tokens))


def byte_level(
    *, frame: tuple[str, str] = ("", ""), named: dict[str, str] | None = None, more: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """The same for byte-level BPE, as GPT-2, OPT, Llama 3 and Qwen have it: "a" and " a" are two tokens.

    Each word of `_WHOLE` is one token with a space before it, and one without.
    """
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator([text for word in _WHOLE for text in (word, f" {word}")], trainer)
    if frame[0]:
        first = (frame[0], model.token_to_id(frame[0]))
        model.post_processor = processors.TemplateProcessing(single=f"{frame[0]} $A", special_tokens=[first])
    extra = [AddedToken(token, special=True, normalized=False) for token in ((*(named or {}).values(), *more))]
    model.add_special_tokens(extra)
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="[PAD]",
        bos_token=frame[0] or "<s>",
        eos_token=frame[1] or "</s>",
        cls_token="[CLS]" if frame == ("[CLS]", "[SEP]") else None,
        sep_token="[SEP]" if frame == ("[CLS]", "[SEP]") else None,
        extra_special_tokens=named or {},
        padding_side="right",
        model_max_length=256,
    )


def tokenizer(
    *, frame: tuple[str, str] = ("", ""), named: dict[str, str] | None = None, more: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """A fast tokenizer with [PAD] as padding, padded on the right.

    Args:
        frame: The special tokens written before and after each text: ("[CLS]", "[SEP]") like BERT, ("<s>", "") like
            Llama, ("", "</s>") like T5. What begins and ends a text is also bos and eos.
        named: Special tokens which the family's processor asks for by name, {"image_token": "<image>"}.
        more: Special tokens without a name.
    """
    pieces = {token: index for index, token in enumerate(vocabulary())}
    model = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece()
    bert = frame == ("[CLS]", "[SEP]")
    if any(frame):
        words = [word for word in frame if word]
        model.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (frame[0], "$A", frame[1]))),
            pair=" ".join(filter(None, (frame[0], "$A", frame[1], "$B:1", f"{frame[1]}:1" if frame[1] else ""))),
            special_tokens=[(word, pieces[word]) for word in words],
        )
    # Added as special, not as words: else the pre-tokenizer splits them at < and > before they are looked up.
    extra = [AddedToken(token, special=True, normalized=False) for token in ((*(named or {}).values(), *more))]
    model.add_special_tokens(extra)
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token=frame[0] or "<s>",
        eos_token=frame[1] or "</s>",
        cls_token="[CLS]" if bert else None,
        sep_token="[SEP]" if bert else None,
        extra_special_tokens=named or {},
        padding_side="right",
        model_max_length=256,
    )
