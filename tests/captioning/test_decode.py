from itertools import product

import pytest
import torch
from torch import nn

from captioning.captioner import Captioner
from captioning.decode import decode
from captioning.models import AttendAndTell, ShowAndTell
from mmcam.errors import UserError
from mmcam.text import SPECIAL

END, A, B, C = 2, 4, 5, 6
LENGTH = 3


class Chain(Captioner):
    """Logits that depend on the picture, the place in the sentence and the two words before, out of a random table."""

    def __init__(self, pictures=3):
        super().__init__("scenes", ["a", "b", "c"])
        v = len(self.vocabulary)
        self.table = 2 * torch.randn(pictures, 8, v, v, v)
        self.readout = nn.Linear(v, v, bias=False)
        nn.init.eye_(self.readout.weight)

    def start(self, activations, memo):
        first = activations[:, 0, 0, 0].long()  # the picture's number is all there is to see
        return first, torch.zeros_like(first), torch.zeros_like(first)

    def step(self, state, word):
        picture, t, before = state
        return (picture, t + 1, word), self.table[picture, t, before, word]


def see(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None]


def mean_log_probability(model, picture, sentence):
    """Of a caption and its end mark, word by word, by hand."""
    total, before, last = 0.0, 0, 1
    for t, word in enumerate([*sentence, END]):
        total += model.table[picture, t, before, last].log_softmax(0)[word].item()
        before, last = last, word
    return total / (len(sentence) + 1)


def greedy(model, picture, length=LENGTH):
    sentence, before, last = [], 0, 1
    for t in range(length):
        logits = model.table[picture, t, before, last]
        word = max((END, A, B, C), key=lambda w: logits[w].item())
        if word == END:
            break
        sentence, before, last = [*sentence, word], last, word
    return sentence


EVERY = [list(words) for n in range(LENGTH + 1) for words in product((A, B, C), repeat=n)]


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_wide_enough_finds_the_best_caption_there_is(seed):
    torch.manual_seed(seed)
    model = Chain()
    best = [max(EVERY, key=lambda words: mean_log_probability(model, picture, words)) for picture in range(3)]
    assert decode(model, see(0, 1, 2), {}, beam=len(EVERY), length=LENGTH) == best
    assert decode(model, see(0, 1, 2), {}, beam=3 * len(EVERY), length=LENGTH) == best


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed):
    torch.manual_seed(seed)
    model = Chain()
    assert decode(model, see(0, 1, 2), {}, beam=1, length=LENGTH) == [greedy(model, picture) for picture in range(3)]


def test_captions_of_every_length_are_compared_fairly():
    found = []
    for seed in range(30):
        torch.manual_seed(seed)
        found += [len(caption) for caption in decode(Chain(), see(0, 1, 2), {}, beam=40, length=LENGTH)]
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_a_batch_is_its_pictures_one_by_one(beam):
    model = Chain()
    together = decode(model, see(2, 0, 1, 2), {}, beam, length=5)
    assert together == [decode(model, see(n), {}, beam, length=5)[0] for n in (2, 0, 1, 2)]


@pytest.mark.parametrize("beam", [1, 2, 4, 40])
def test_marks_are_never_said(beam):
    model = Chain()
    model.table[..., [0, 1, 3]] += 50  # padding, start and the unknown word are by far the likeliest
    for caption in decode(model, see(0, 1, 2), {}, beam, length=4):
        assert {*caption} <= {A, B, C}
        assert len(caption) <= 4


@pytest.mark.parametrize("beam", [1, 3])
def test_a_caption_that_does_not_end_is_cut(beam):
    model = Chain()
    model.table[..., END] -= 100
    captions = decode(model, see(0, 1, 2), {}, beam, length=4)
    assert [len(caption) for caption in captions] == [4, 4, 4]


@pytest.mark.parametrize("beam", [1, 3])
def test_a_caption_may_be_empty(beam):
    model = Chain()
    model.table[0, 0, ..., END] += 100
    assert decode(model, see(0, 1), {}, beam, length=4)[0] == []
    assert decode(Chain(), see(0, 1), {}, beam, length=0) == [[], []]


@pytest.mark.parametrize(("beam", "length"), [(0, 4), (-1, 4), (1, -2)])
def test_beams_and_lengths_that_are_none(beam, length):
    with pytest.raises(UserError, match=f"expected a beam of 1 at least .*, got {beam} and {length}"):
        decode(Chain(), see(0, 1), {}, beam, length)


def test_a_finished_caption_waits_while_others_go_on():
    model = Chain(2)
    model.table[0, 1, ..., END] += 100
    model.table[1, ..., END] -= 100
    short, long = decode(model, see(0, 1), {}, 2, length=6)
    assert (len(short), len(long)) == (1, 6)
    assert short == decode(model, see(0), {}, 2, length=6)[0]


@pytest.mark.parametrize("cls", [ShowAndTell, AttendAndTell])
def test_the_real_models_decode_alike_step_by_step(cls):
    model = cls(["a", "b", "c"], embedding=4, hidden=5).eval()
    for name, value in model.named_parameters():
        if not name.startswith("backbone"):
            nn.init.normal_(value)
    activations = torch.rand(2, 96, 2, 3)
    found = decode(model, activations, {}, beam=1, length=5)
    assert found == [decode(model, activations[i : i + 1], {}, beam=1, length=5)[0] for i in range(2)]
    for i, caption in enumerate(found):
        heard = torch.tensor([[1, *caption]])
        with torch.no_grad():
            logits = model.readout(model.states(activations[i : i + 1], {}, heard))[0]
        logits[:, [0, 1, 3]] = -torch.inf
        expected = [*caption, END][: len(caption) + (len(caption) < 5)]
        assert logits.argmax(1).tolist()[: len(expected)] == expected
    assert len(decode(model, activations, {}, beam=3, length=5)) == 2
    assert model.vocabulary.words[:4] == SPECIAL
