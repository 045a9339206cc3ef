import pytest
import torch
from torch import nn

from captioning.captioner import LSTMStep
from captioning.load import load
from captioning.models import FOUND, AttendAndTell, ShowAndTell
from mmcam.checkpoint import save_model
from mmcam.errors import UserError
from mmcam.gradients import batched, channel_weights, looped
from mmcam.likelihood import word_log_probability, word_logit_difference
from mmcam.networks.places import PLACES, place_code

WORDS = ["a", "dog", "cat", "left", "of"]
SIZE = {"embedding": 5, "hidden": 6}
MODELS = (ShowAndTell, AttendAndTell)
B, T, H, W, V = 2, 4, 3, 5, 9


def make(cls, **more):
    """A model in float64 whose weights are large enough that its attention is not flat."""
    model = cls(WORDS, **SIZE, **more).double().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not name.startswith("backbone"):
                value.normal_(std=0.05 if name.startswith("evidence") else 0.5)
    return model


@pytest.fixture(autouse=True)
def no_floor(monkeypatch):
    """The identities hold where the evidence's floor is out of reach; tests/networks/test_looking.py tests it."""
    monkeypatch.setattr("mmcam.networks.looking.FLOOR", -15.0)


@pytest.fixture
def case():
    """Activations of two pictures and four words of a caption of each, the start mark first."""
    words = torch.randint(4, 9, (B, T))
    words[:, 0] = 1
    return torch.rand(B, 96, H, W, dtype=torch.float64) * 2, words


def test_a_step_in_plain_operations_is_torch_s_lstm_cell():
    ours, theirs = LSTMStep(3, 4).double(), nn.LSTMCell(3, 4).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    mine, other = ours(x, state), theirs(x, state)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)
    gradients = [torch.autograd.grad(h.sum() + 2 * c.sum(), x)[0] for h, c in (mine, other)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_show_and_tell_is_an_lstm_that_sees_the_picture_first(case):
    activations, words = case
    model = make(ShowAndTell)
    lstm = nn.LSTM(5, 6, batch_first=True).double()
    lstm.load_state_dict({f"{name}_l0": value for name, value in model.lstm.state_dict().items()})
    seen = model.see(model.backbone.vector(activations, {}))
    outputs, _ = lstm(torch.cat([seen[:, None], model.hear(words)], 1))
    torch.testing.assert_close(model.states(activations, {}, words), outputs[:, 1:], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cls", MODELS)
def test_step_by_step_gives_the_states(cls, case):
    activations, words = case
    model = make(cls)
    state, outs = model.start(activations, {}), []
    for t in range(T):
        state, out = model.step(state, words[:, t])
        outs.append(out)
    states = model.states(activations, {}, words)
    assert torch.equal(states, torch.stack(outs, 1))
    assert states.shape == (B, T, model.readout.in_features)


@pytest.mark.parametrize("cls", MODELS)
def test_a_state_knows_nothing_of_later_words(cls, case):
    activations, words = case
    model, other = make(cls), words.clone()
    other[:, 2:] = 4
    states, same = model.states(activations, {}, words), model.states(activations, {}, other)
    assert torch.equal(states[:, :2], same[:, :2])


@pytest.mark.parametrize("cls", MODELS)
def test_several_captions_share_a_picture(cls, case):
    activations, words = case
    model = make(cls)
    both = torch.stack([words, words.flip(0)], 1).flatten(0, 1)  # picture 0's two captions, then picture 1's
    together = model.states(activations, {}, both)
    alone = model.states(activations.repeat_interleave(2, 0), {}, both)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cls", MODELS)
def test_a_batch_is_its_pictures_one_by_one(cls, case):
    activations, words = case
    model = make(cls)
    singly = [model.states(activations[i : i + 1], {}, words[i : i + 1]) for i in range(B)]
    torch.testing.assert_close(model.states(activations, {}, words), torch.cat(singly), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cls", MODELS)
def test_forward_reads_logits_off_the_trunk_s_activations(cls):
    model, images, words = cls(WORDS, **SIZE).eval(), torch.randn(1, 3, 32, 32), torch.tensor([[1, 4, 5]])
    activations, memo = model.backbone.trunk(images)
    assert torch.equal(model(images, words), model.readout(model.states(activations, memo, words)))
    assert model(images, words).shape == (1, 3, 9)


@pytest.mark.parametrize("cls", MODELS)
def test_all_words_at_once_is_word_by_word(cls, case, caplog):
    activations, words = case
    model = make(cls)
    caplog.set_level("INFO")

    def head(x, index):
        states = model.states(x, {}, words[index])
        return word_log_probability(states, model.readout.weight, model.readout.bias, words[index].roll(-1, 1))

    rows = torch.eye(T, dtype=torch.float64).expand(B, T, T)
    ours, theirs = (channel_weights(head, activations, rows, vjp) for vjp in (batched, looped))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-15)
    assert "row by row" not in caplog.text  # every operation has a batching rule


def test_evidence_of_a_look_at_everything_is_log_mean_exp(case):
    """A query of nothing looks everywhere alike; then the evidence is pooled as in the embedded classifier."""
    activations, words = case
    model = make(AttendAndTell)
    nn.init.zeros_(model.query.weight)
    nn.init.zeros_(model.query.bias)
    evidence = model.states(activations, {}, words)[..., :V]
    votes = model.evidence(activations).flatten(2)
    expected = (3 * votes).exp().mean(2).log() / 3
    torch.testing.assert_close(evidence, expected[:, None].expand(B, T, V), rtol=1e-8, atol=1e-9)


def test_attention_weighs_places_by_a_dot_product(case):
    """What speaks for each word and where it is, computed place by place from the state that asks."""
    activations, words = case
    model = make(AttendAndTell)
    state, out = model.step(model.start(activations, {}), words[:, 0])
    ground = torch.cat([activations.flatten(2), place_code(activations).expand(B, -1, -1)], 1)
    for i in range(B):
        query = model.query(state[0][i])
        looks = torch.stack([(query @ ground[i, :, n]).exp() for n in range(H * W)])
        looks = looks / looks.sum()
        assert looks.max() / looks.min() > 2
        assert torch.equal(out[i, -6:], state[0][i])
        where = sum(looks[n] * ground[i, 96:, n] for n in range(H * W))
        torch.testing.assert_close(out[i, V : V + PLACES], where, rtol=1e-11, atol=1e-12)
        votes = model.evidence(activations)[i].flatten(1)
        evidence = sum(looks[n] * (3 * votes[:, n]).exp() for n in range(H * W)).log() / 3
        torch.testing.assert_close(out[i, :V], evidence, rtol=1e-8, atol=1e-9)


def silent(model):
    """Let nobody hear what the model counts: neither the readout nor the LSTM."""
    with torch.no_grad():
        model.readout.rest.weight[:, PLACES:FOUND] = 0
        model.lstm.weight_ih[:, 5 + PLACES : 5 + FOUND] = 0
    return model


def test_counts_are_whole_and_draw_no_map(case):
    """In eval mode; while training the gradient passes as if they were not rounded."""
    activations, words = case
    model = make(AttendAndTell)
    many = model.states(activations, {}, words)[..., V + PLACES]
    assert torch.equal(many, many.round())
    model.words = words
    found = weights_of(model, activations, lambda states: states[..., V + PLACES])
    assert not found.any()
    model.train()
    x = activations.requires_grad_()
    assert torch.autograd.grad(model.states(x, {}, words)[..., V + PLACES].sum(), x)[0].any()


def test_words_of_one_stem_share_their_evidence():
    model = AttendAndTell(["dog", "dogs", "a", "cat"], **SIZE)
    index = model.readout.index.tolist()
    assert index[4] == index[5]
    assert len(set(index)) == model.readout.count == model.evidence.out_channels == 7  # four are special
    state = torch.rand(2, model.readout.in_features)
    torch.testing.assert_close(
        model.readout(state), state @ model.readout.weight.T + model.readout.bias, rtol=1e-6, atol=1e-6
    )
    own = model.readout.weight[:, : model.readout.count]
    assert torch.equal(own != 0, torch.nn.functional.one_hot(model.readout.index, 7).bool())


def weights_of(model, activations, score):
    """α of T scores that are a function of the states."""
    words = model.words
    rows = torch.eye(T, dtype=torch.float64).expand(B, T, T)
    return channel_weights(lambda x, index: score(model.states(x, {}, words)), activations, rows, looped)[1]


@pytest.mark.parametrize("word", [4, 8])
def test_the_alpha_of_a_word_s_evidence_is_its_row(case, word):
    """Attention, places and gist add nothing to the spatial mean of the gradient, at no step and through no LSTM.

    All of them stay the same when A grows by the same vector everywhere; only the evidence grows, by its row's share.
    """
    activations, words = case
    model = silent(make(AttendAndTell))
    model.words, row = words, model.evidence.weight[word].flatten()
    found = weights_of(model, activations, lambda states: states[..., word])
    torch.testing.assert_close(found, (row / (H * W)).expand(B, T, 96), rtol=1e-6, atol=1e-9)
    shift = torch.randn(B, 96, 1, 1, dtype=torch.float64)
    states, shifted = (model.states(x, {}, words) for x in (activations, activations + shift))
    torch.testing.assert_close(shifted[..., V : V + PLACES], states[..., V : V + PLACES], rtol=0, atol=1e-9)
    torch.testing.assert_close(shifted[..., -6:], states[..., -6:], rtol=0, atol=1e-9)
    grown = (shift[:, :, 0, 0] @ row)[:, None].expand(B, T)
    torch.testing.assert_close((shifted - states)[..., word], grown, rtol=1e-6, atol=1e-7)


def test_a_word_s_alpha_is_its_mixture_of_rows_less_the_expected_one(case):
    activations, words = case
    model, said = silent(make(AttendAndTell)), words.roll(-1, 1)
    model.words, (weight, bias) = words, (model.readout.weight, model.readout.bias)
    mixtures = weight[:, :V] @ model.evidence.weight.flatten(1)
    expected = model.readout(model.states(activations, {}, words)).softmax(2) @ mixtures
    found = weights_of(model, activations, lambda states: word_log_probability(states, weight, bias, said))
    torch.testing.assert_close(found, (mixtures[said] - expected) / (H * W), rtol=1e-6, atol=1e-8)
    foils = words.flip(0)
    contrast = weights_of(model, activations, lambda states: word_logit_difference(states, weight, bias, said, foils))
    torch.testing.assert_close(contrast, (mixtures[said] - mixtures[foils]) / (H * W), rtol=1e-6, atol=1e-8)


def test_dropout_is_for_training_only(case):
    activations, words = case
    for cls in MODELS:
        model = make(cls, dropout=0.5)
        assert torch.equal(model.states(activations, {}, words), model.states(activations, {}, words))
        model.train()
        assert not torch.equal(model.states(activations, {}, words), model.states(activations, {}, words))


@pytest.mark.parametrize("cls", MODELS)
def test_a_saved_captioner_is_loaded(cls, case, tmp_path):
    activations, words = case
    model = cls(WORDS, **SIZE).eval()
    loaded = load(str(save_model(model, tmp_path / "captioner")))
    assert type(loaded) is cls
    assert loaded.vocabulary.words == model.vocabulary.words
    assert torch.equal(loaded.states(activations.float(), {}, words), model.states(activations.float(), {}, words))


def test_what_is_no_captioner_is_not_loaded(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "NormProduct"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"unknown architecture in .*'NormProduct'"):
        load(str(tmp_path))
