import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.gradients import batched, channel_weights, looped
from vqa.load import load
from vqa.models import NormProduct, StackedAttention

WORDS = ["is", "there", "a", "dog", "cat", "?"]
ANSWERS = ["yes", "no", "dog", "2"]
SIZES = {NormProduct: {"embedding": 4, "hidden": 5, "common": 6}, StackedAttention: {"hidden": 5}}
B, H, W = 3, 4, 5


def make(cls, **more):
    """A model in float64 whose weights are large enough that its attention is not flat."""
    model = cls(WORDS, ANSWERS, **SIZES[cls], **more).double().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.startswith("backbone"):
                value.normal_(std=0.05 if name.startswith("evidence") else 0.3)
    return model


@pytest.fixture(autouse=True)
def no_floor(monkeypatch):
    """The identities hold where the evidence's floor is out of reach; tests/networks/test_looking.py tests it."""
    monkeypatch.setattr("mmcam.networks.looking.FLOOR", -15.0)


@pytest.fixture
def case():
    """Activations of three pictures and a question of 4, 2 and 6 words for each."""
    lengths = torch.tensor([4, 2, 6])
    words = torch.randint(4, 10, (B, 6)) * (torch.arange(6) < lengths[:, None])
    return 2 * torch.rand(B, 96, H, W, dtype=torch.float64), words, lengths


both = pytest.mark.parametrize("cls", list(SIZES))


@both
def test_padding_is_not_heard(cls, case):
    _, words, lengths = case
    model = make(cls)
    together = model.listen(words, lengths)
    wider = torch.cat([words, torch.full((B, 2), 7)], 1)
    torch.testing.assert_close(model.listen(wider, lengths), together, rtol=1e-12, atol=1e-13)
    for i, n in enumerate(lengths.tolist()):
        alone = model.listen(words[i : i + 1, :n], lengths[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-12, atol=1e-13)


@both
def test_every_word_is_heard_in_its_order(cls, case):
    _, words, lengths = case
    model = make(cls)
    heard = model.listen(words, lengths)
    for change in (words.roll(1, 1)[2], words[2].clone().index_fill_(0, torch.tensor([3]), 4 + int(words[2, 3] == 4))):
        assert (model.listen(change[None], lengths[2:])[0] - heard[2]).abs().max() > 1e-6


@both
def test_a_batch_is_its_questions_one_by_one(cls, case):
    activations, words, lengths = case
    model = make(cls)
    question = model.listen(words, lengths)
    singly = [model.answer(activations[i : i + 1], {}, question[i : i + 1]) for i in range(B)]
    logits = model.answer(activations, {}, question)
    assert logits.shape == (B, len(ANSWERS))
    torch.testing.assert_close(logits, torch.cat(singly), rtol=1e-11, atol=1e-12)


@both
def test_several_questions_share_a_picture(cls, case):
    activations, words, lengths = case
    model = make(cls)
    question = model.listen(words, lengths).repeat(2, 1)  # picture 0: questions 0, 1, 2; picture 1 likewise
    together = model.answer(activations[:2], {}, question)
    alone = model.answer(activations[:2].repeat_interleave(3, 0), {}, question)
    torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-12)


@both
def test_forward_joins_trunk_question_and_answer(cls):
    model = cls(WORDS, ANSWERS, **SIZES[cls]).eval()
    images, words, lengths = torch.randn(1, 3, 32, 32), torch.tensor([[4, 5, 6]]), torch.tensor([3])
    activations, memo = model.backbone.trunk(images)
    assert torch.equal(model(images, words, lengths), model.answer(activations, memo, model.listen(words, lengths)))


def test_the_papers_form_by_hand(case):
    """LSTM-Q + norm-I: cell and hidden states of both layers, times the image vector of length one."""
    activations, words, lengths = case
    model, n = make(NormProduct), 4
    _, (h, c) = model.lstm(model.hear(words[:1, :n]))
    question = torch.cat([c[0], h[0], c[1], h[1]], 1)
    torch.testing.assert_close(model.listen(words, lengths)[:1], question, rtol=1e-12, atol=1e-13)
    image = normalize(model.backbone.vector(activations[:1], {}), dim=1)
    assert image.norm().item() == pytest.approx(1)
    joined = (model.question[1](question)).tanh() * (model.image[1](image)).tanh()
    expected = model.readout[1](joined)
    torch.testing.assert_close(model.answer(activations[:1], {}, question), expected, rtol=1e-12, atol=1e-13)


def test_a_normed_image_does_not_know_how_bright_it_is(case):
    activations, words, lengths = case
    model = make(NormProduct)
    question = model.listen(words, lengths)
    bright = model.answer(7 * activations, {}, question)
    torch.testing.assert_close(bright, model.answer(activations, {}, question), rtol=1e-11, atol=1e-12)


def weights_of(model, activations, question, vjp=looped):
    rows = torch.eye(len(ANSWERS), dtype=torch.float64).expand(B, -1, -1)
    return channel_weights(lambda x, index: model.answer(x, {}, question[index]), activations, rows, vjp)[1]


@both
def test_all_answers_at_once_is_answer_by_answer(cls, case, caplog):
    activations, words, lengths = case
    model = make(cls)
    question = model.listen(words, lengths).detach()
    caplog.set_level("INFO")
    together, singly = (weights_of(model, activations, question, vjp) for vjp in (batched, looped))
    torch.testing.assert_close(together, singly, rtol=1e-11, atol=1e-14)
    assert "row by row" not in caplog.text  # every operation has a batching rule


def counting_nothing(model):
    """Let nobody hear how many there are."""
    with torch.no_grad():
        model.join[0].weight[:, -2 * model.densities :] = 0
    return model


def test_an_answer_s_alpha_is_its_mixture_of_rows_but_for_what_is_counted(case):
    """Looks and places add nothing to the spatial mean of the gradient; the sums of densities do."""
    activations, words, lengths = case
    model = make(StackedAttention)
    question = model.listen(words, lengths).detach()
    mixtures = model.readout.weight @ model.evidence.weight.flatten(1)
    row = (mixtures / (H * W)).expand(B, -1, -1)
    whole = weights_of(model, activations, question)
    assert (whole - row).abs().max() > 1e-3 * whole.abs().max()
    torch.testing.assert_close(weights_of(counting_nothing(model), activations, question), row, rtol=1e-6, atol=1e-9)


def test_the_same_vector_added_everywhere_moves_no_look(case):
    activations, words, lengths = case
    model = counting_nothing(make(StackedAttention))
    question = model.listen(words, lengths).detach()
    shift = torch.randn(B, 96, 1, 1, dtype=torch.float64)
    moved = model.answer(activations + shift, {}, question) - model.answer(activations, {}, question)
    mixtures = model.readout.weight @ model.evidence.weight.flatten(1)
    torch.testing.assert_close(moved, shift.flatten(1) @ mixtures.T, rtol=1e-6, atol=1e-7)


@both
def test_a_saved_model_is_loaded(cls, case, tmp_path):
    activations, words, lengths = case
    model = cls(WORDS, ANSWERS, **SIZES[cls]).eval()
    loaded = load(str(save_model(model, tmp_path / "vqa")))
    assert type(loaded) is cls
    assert (loaded.answers, loaded.vocabulary.words) == (model.answers, model.vocabulary.words)
    for part in (model, loaded):
        part.double()
    expected = model.answer(activations, {}, model.listen(words, lengths))
    assert torch.equal(loaded.answer(activations, {}, loaded.listen(words, lengths)), expected)


def test_what_is_no_vqa_model_is_not_loaded(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "ShowAndTell"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"unknown architecture in .*'ShowAndTell'"):
        load(str(tmp_path))


def test_dropout_is_for_training_only(case):
    activations, words, lengths = case
    for cls in SIZES:
        model = make(cls, dropout=0.5)
        question = model.listen(words, lengths)
        assert torch.equal(model.answer(activations, {}, question), model.answer(activations, {}, question))
        model.train()
        assert not torch.equal(model.answer(activations, {}, question), model.answer(activations, {}, question))
        assert isinstance(model.lstm, nn.LSTM)
