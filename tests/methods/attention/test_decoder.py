"""Captions by a vision transformer and a decoder with cross-attention: every word's own map, teacher-forced."""

import pytest
import torch
from torch import nn

from mmcam.engine import explain
from mmcam.errors import UserError
from mmcam.methods.attention.chain import Chain
from mmcam.task import Batch, Targets, Task
from tests.reference import close, same_maps, untouched

transformers = pytest.importorskip("transformers")

START, WORDS = 0, 11
CAPTIONS = Targets.of([[3, 5, 2], [7, 4]], [["a", "red", "dog"], ["two", "cats"]])


class Captioner(Task):
    """Hugging Face's VisionEncoderDecoder, tiny and random; A is what the encoder gives, without its class token."""

    separator = " "

    def __init__(self, attention="sdpa"):
        super().__init__()
        small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
        encoder = transformers.ViTConfig(image_size=32, patch_size=8, attn_implementation=attention, **small)
        decoder = transformers.GPT2Config(
            vocab_size=WORDS, n_positions=20, n_embd=16, n_layer=2, n_head=2, add_cross_attention=True, is_decoder=True,
            bos_token_id=START, eos_token_id=1, attn_implementation=attention,
        )  # fmt: skip
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(3)
            self.model = transformers.VisionEncoderDecoderModel(
                encoder=transformers.ViTModel(encoder, add_pooling_layer=False),
                decoder=transformers.GPT2LMHeadModel(decoder),
            )
            for parameter in self.model.parameters():
                parameter.normal_(std=0.3 if parameter.ndim > 1 else 0.5)

    def collate(self, samples):
        raise NotImplementedError

    def predict(self, activations, batch):
        raise NotImplementedError

    def trunk(self, batch):
        tokens = self.model.encoder(pixel_values=batch.images).last_hidden_state
        batch.memo["class token"] = tokens[:, :1]
        return tokens[:, 1:].mT.unflatten(2, (4, 4))

    def scores(self, activations, batch, targets):
        tokens = torch.cat([batch.memo["class token"], activations.flatten(2).mT], 1)
        heard = nn.functional.pad(targets.ids[:, :-1], (1, 0), value=START)
        logits = self.model.decoder(input_ids=heard, encoder_hidden_states=tokens).logits
        return targets.pick(logits.log_softmax(-1))


def images(count=2):
    noise = torch.randn(count, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Batch(noise, ("a", "b")[:count], ((32, 32),) * count)


def looked(ids, picture):
    """Attentions of the eager twin for one caption, layer by layer, and the words' log-probabilities."""
    model = Captioner("eager").double().eval().model
    heard = torch.tensor([[START, *ids[:-1]]])
    encoded = model.encoder(pixel_values=picture, output_attentions=True)
    found = model.decoder(input_ids=heard, encoder_hidden_states=encoded.last_hidden_state, output_attentions=True)
    words = found.logits.log_softmax(-1)[0, torch.arange(len(ids)), ids]
    return list(encoded.attentions), list(found.attentions), list(found.cross_attentions), words


def test_gradient_times_cross_attention_of_every_word():
    task, batch = Captioner().double().eval(), images()
    for i, explanation in enumerate(explain(task, batch, CAPTIONS, "gradient_attention")):
        ids = CAPTIONS.ids[i, : len(explanation.words)].tolist()
        _, _, crosses, words = looked(ids, batch.images[i : i + 1])
        assert close(explanation.scores, words.detach(), rtol=1e-5)
        for place, map in enumerate(explanation.signed):
            (g,) = torch.autograd.grad(words[place], crosses[-1:], retain_graph=True)
            p = crosses[-1].detach()
            expected = sum((p[0, h, place] * g[0, h, place]).clamp(min=0) for h in range(2)) / 2
            assert close(map, expected[1:].unflatten(0, (4, 4)), rtol=1e-4)


def test_relevance_of_encoder_and_decoder():
    task, batch = Captioner().double().eval(), images()
    for i, explanation in enumerate(explain(task, batch, CAPTIONS, "attention_relevance")):
        ids = CAPTIONS.ids[i, : len(explanation.words)].tolist()
        own, heard, crosses, words = looked(ids, batch.images[i : i + 1])
        for place, map in enumerate(explanation.signed):
            grads = torch.autograd.grad(words[place], [*own, *heard, *crosses], retain_graph=True)
            mixed = [
                (p.detach()[0] * g[0]).clamp(min=0).mean(0)
                for p, g in zip([*own, *heard, *crosses], grads, strict=True)
            ]
            pictures, sentence = torch.eye(17).double(), torch.eye(len(ids)).double()
            across = torch.zeros(len(ids), 17).double()
            for m in mixed[:2]:
                pictures = pictures + m @ pictures
            for m, cross in zip(mixed[2:4], mixed[4:], strict=True):
                sentence, across = sentence + m @ sentence, across + m @ across
                across = across + bar(sentence).T @ cross @ bar(pictures)
            assert close(map, across[place, 1:].unflatten(0, (4, 4)), rtol=1e-4)


def bar(relevance):
    rest = relevance - torch.eye(len(relevance)).double()
    sums = rest.sum(1, keepdim=True)
    return torch.where(sums == 0, 0, rest / sums) + torch.eye(len(relevance)).double()


@pytest.mark.parametrize("method", ["gradient_attention", "attention_relevance"])
def test_later_words_change_nothing(method):
    task, batch = Captioner().double().eval(), images(1)
    (long,) = explain(task, batch, Targets.of([[3, 5, 2, 9]], [["a", "red", "dog", "runs"]]), method)
    (short,) = explain(task, batch, Targets.of([[3, 5]], [["a", "red"]]), method)
    assert close(long.signed[:2], short.signed, rtol=1e-9)
    (cut,) = explain(task, batch, Targets.of([[3]], [["a"]]), "gradient_attention")  # t = 1: one query, as of a probe
    (whole,) = explain(task, batch, Targets.of([[3, 5]], [["a", "red"]]), "gradient_attention")
    assert close(cut.signed, whole.signed[:1], rtol=1e-9)


@pytest.mark.parametrize("method", ["gradient_attention", "attention_relevance"])
def test_a_caption_in_a_ragged_batch_is_the_caption_alone(method):
    task, batch = Captioner().double().eval(), images()
    together = explain(task, batch, CAPTIONS, method)
    one = batch.take(torch.tensor([1]))
    alone = explain(task, one, Targets.of([[7, 4]], [["two", "cats"]]), method)
    assert same_maps(alone, together[1:], rtol=1e-9)


def test_rollout_is_not_for_decoders_and_legrad_is_of_the_encoder():
    task = Captioner().double().eval()
    for explanation in explain(task, images(), CAPTIONS, "legrad"):
        assert set(explanation.flags) == {""}
    with untouched(task), pytest.raises(UserError, match="use attention_relevance"):
        explain(task, images(), CAPTIONS, "attention_rollout")


def test_more_than_two_kinds_of_tokens_are_refused():
    one, other = torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 4)
    with pytest.raises(UserError, match="at most one kind of other tokens"):
        Chain.of([one, other])
    with pytest.raises(UserError, match="at most one kind of other tokens"):
        Chain.of([torch.ones(1, 1, 5, 5), one])


def test_as_many_words_as_places_are_refused():
    task, ids = Captioner().double().eval(), [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9, 2]
    targets = Targets.of([ids], [["word"] * 17])
    with untouched(task), pytest.raises(UserError, match="got 17 of both"):
        explain(task, images(1), targets, "gradient_attention")
    (found,) = explain(task, images(1), Targets.of([ids[1:]], [["word"] * 16]), "gradient_attention")
    assert set(found.flags) == {""}
