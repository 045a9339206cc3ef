import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.autograd import Function

from mmcam import cam, gradients
from mmcam.engine import explain, explain_activations, explain_all
from mmcam.errors import UserError
from mmcam.gradients import channel_weights, looped
from mmcam.task import Batch, Sample, Targets
from tests.reference import (
    DECODERS,
    TASKS,
    WAYS,
    Classifier,
    Small,
    alone,
    close,
    devices,
    loop,
    make,
    pictures,
    ragged,
    same_maps,
    unchecked,
    untouched,
)

METHODS = ("grad_cam", "hires_cam", "activation_norm")


class Given(Small):
    """Activations are the picture itself, the scores what the test says."""

    def __init__(self, scores, trunk=lambda images: images):
        super().__init__()
        self.of, self.make = scores, trunk

    def trunk(self, batch):
        return self.make(batch.images)

    def scores(self, activations, batch, targets):
        return self.of(activations)[:, : targets.ids.shape[1]]


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_a_task_may_have_a_way_to_differentiate_of_its_own(method):
    asked = []

    def own(head, x, rows, **options):
        asked.append(len(rows))
        return looped(head, x, rows, **options)

    task, batch, targets = make("plain"), pictures(4), ragged()
    expected = explain(task, batch, targets, method)
    task.vjp = own
    assert same_maps(explain(task, batch, targets, method), expected)
    assert asked == [4]
    bare = make("classifier")
    type(bare).vjp = looped  # without staticmethod
    assert len(explain(bare, batch, targets, method)) == 4


def signed(explanations):
    return [explanation.signed for explanation in explanations]


# Grad-CAM on global average pooling and a linear layer


@devices
def test_grad_cam_is_cam_over_z(device):
    # CAM_c = Σ_k W_ck A^k (Zhou et al., arXiv 1512.04150); ∂y_c/∂A^k = W_ck / Z everywhere, so α = W_ck / Z.
    task, batch, targets = make("classifier", device), pictures(4, device), ragged()
    a = task.trunk(batch).detach()
    z = a.shape[2] * a.shape[3]
    for i, explanation in enumerate(explain(task, batch, targets)):
        n = len(targets.words[i])
        cams = torch.einsum("ck,khw->chw", task.linear.weight.detach()[targets.ids[i, :n]], a[i])
        assert close(explanation.signed, (cams / z).cpu())
        assert close(explanation.maps, (cams.relu() / z).cpu())


@devices
@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
def test_the_map_of_that_head_sums_to_the_logit_less_the_bias(method, device):
    # Σ_xy Σ_k W_ck/Z A^k_xy = Σ_k W_ck mean(A^k) = y_c - b_c: the sum over the places, with factor one.
    task, batch, targets = make("classifier", device), pictures(4, device), ragged()
    for i, explanation in enumerate(explain(task, batch, targets, method)):
        bias = task.linear.bias.detach().cpu()[targets.ids[i, : len(explanation.words)]]
        assert close(explanation.signed.sum((1, 2)), explanation.scores - bias)


def test_hires_cam_is_grad_cam_on_that_head_and_not_on_others():
    for name, same in (("classifier", True), ("convolved", False)):
        task, batch, targets = make(name), pictures(), ragged()
        assert (
            same_maps(explain(task, batch, targets), explain(task, batch, targets, "hires_cam"), 1e-10 if same else 0.1)
            == same
        )


def test_a_map_by_hand():
    # A = [[1, 2], [3, 4]] and [[1, 0], [0, 0]]; y = (Σ A¹)² + 8 A²_00: α¹ = 2·10 = 20, α² = 8/4 = 2.
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    task = Given(lambda a: (a[:, 0].sum((1, 2)) ** 2 + 8 * a[:, 1, 0, 0])[:, None]).double()
    (explanation,) = explain(task, Batch(images, ("x",), ((2, 2),)), Targets.of([[0]], [["word"]]))
    assert explanation.scores.tolist() == [108.0]
    assert explanation.signed.tolist() == [[[22, 40], [60, 80]]]
    (explanation,) = explain(task, Batch(images, ("x",), ((2, 2),)), Targets.of([[0]], [["word"]]), "hires_cam")
    assert explanation.signed.tolist() == [[[28, 40], [60, 80]]]


def test_rows_and_columns_are_not_exchanged():
    images = torch.zeros(1, 1, 3, 5, dtype=torch.float64)
    images[0, 0, 2, 1] = 1
    task = Given(lambda a: a.sum((1, 2, 3))[:, None])
    (explanation,) = explain(task, Batch(images, ("x",), ((3, 5),)), Targets.of([[0]], [["word"]]))
    assert torch.equal(explanation.maps[0], images[0, 0])


# Every task, every way


@devices
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", TASKS)
def test_all_words_at_once_are_one_full_pass_a_word(name, how, device):
    task, batch, targets = make(name, device, how=how), pictures(4, device), ragged()
    explanations = explain(task, batch, targets)
    for i, (scores, _, maps) in enumerate(loop(make(name, device), batch, targets)):
        assert explanations[i].words == targets.words[i]
        assert close(explanations[i].scores, scores)
        assert close(explanations[i].signed, maps)


@pytest.mark.parametrize("name", ["attention", "lstm", "convolved"])
def test_the_methods_that_need_the_full_gradient_agree_too(name):
    batch, targets = pictures(), ragged()
    found = [explain(make(name, how=how), batch, targets, "hires_cam") for how in WAYS]
    assert same_maps(found[0], found[1])
    assert same_maps(found[0], found[2])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("how", WAYS)
def test_one_trunk_and_one_head(name, how, monkeypatch):
    original, backwards = torch.autograd.grad, []
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backwards.append(0) or original(*a, **k))
    task = make(name, how=how)
    explain(task, pictures(), ragged())
    assert task.calls == {"trunk": 1, "scores": 1}
    assert len(backwards) == {"batched": 1, "looped": 4, "replicated": 1}[how]
    explain(task, pictures())
    assert task.calls == {"trunk": 2, "predict": 1, "scores": 2}


# Words, sentences, phrases


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
@pytest.mark.parametrize("name", TASKS)
def test_word_maps_before_relu_sum_to_the_sentences(name, method):
    task, batch, targets = make(name), pictures(), ragged()
    for words, sentence in zip(
        explain(task, batch, targets, method), explain(task, batch, targets.sentence(), method), strict=True
    ):
        assert close(words.signed.sum(0, keepdim=True), sentence.signed)
        assert close(words.scores.sum(0, keepdim=True), sentence.scores)
        assert sentence.words == (" ".join(words.words),)


def test_the_sentences_score_is_one_backward_of_the_whole_caption():
    task, batch, targets = make("attention"), pictures(), ragged()
    a = task.trunk(batch).detach().requires_grad_()
    y = (task.scores(a, batch, targets) * targets.mask).sum()
    (gradient,) = torch.autograd.grad(y, a)
    maps = torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), a.detach())
    assert close(torch.cat(signed(explain(task, batch, targets.sentence()))), maps)


def test_a_phrase_is_the_sum_of_its_words_and_a_word_of_its_pieces():
    task, batch, targets = make("attention"), pictures(2), ragged((4, 3))
    words = explain(task, batch, targets)
    phrases = explain(task, batch, targets.merged([[(0, 1), (1, 4)], [(1, 3)]], separator=""))
    assert phrases[0].words == (targets.words[0][0], "".join(targets.words[0][1:]))
    assert close(phrases[0].signed, torch.stack([words[0].signed[0], words[0].signed[1:].sum(0)]))
    assert close(phrases[1].signed[0], words[1].signed[1:].sum(0))
    # Phrases of words made of pieces are phrases of the pieces.
    nested = targets.merged([[(0, 2), (2, 4)], [(0, 3)]]).merged([[(0, 2)], [(0, 1)]])
    assert same_maps(explain(task, batch, nested), explain(task, batch, targets.sentence()))


def test_some_words_have_the_maps_they_have_among_all():
    task, batch, targets = make("attention"), pictures(2), ragged((4, 3))
    all_words, some = explain(task, batch, targets), explain(task, batch, targets.only([[3, 1], []]))
    assert some[0].words == (targets.words[0][3], targets.words[0][1])
    assert close(some[0].signed, all_words[0].signed[[3, 1]])
    assert some[1].words == ()


@pytest.mark.parametrize("name", TASKS)
def test_the_negated_score_gives_the_counterfactual(name):
    # Section 3.3 of the paper: the same maps from -∂y/∂A. What ReLU leaves of one it takes from the other.
    task, batch, targets = make(name), pictures(), ragged()
    for plus, minus in zip(explain(task, batch, targets), explain(task, batch, targets.negative()), strict=True):
        assert torch.equal(minus.signed, -plus.signed)
        assert torch.equal(minus.scores, -plus.scores)
        assert torch.equal(plus.maps - minus.maps, plus.signed)


@pytest.mark.parametrize("name", ["classifier", "answerer"])
def test_a_contrast_of_classes_is_the_difference_of_their_maps(name):
    task, batch, targets = make(name), pictures(), ragged()
    foils = (targets.ids + 4) % 11
    contrast = explain(task, batch, targets.rather_than(foils))
    for one, other, both in zip(
        explain(task, batch, targets), explain(task, batch, replace(targets, ids=foils)), contrast, strict=True
    ):
        assert close(both.signed, one.signed - other.signed)
        assert close(both.scores, one.scores - other.scores)


@pytest.mark.parametrize("name", DECODERS)
def test_a_contrast_of_words_leaves_the_words_before_them(name):
    task, batch, targets = make(name), pictures(), ragged()
    foils = (targets.ids + 4) % 11
    a = task.trunk(batch).detach()

    def of_foils(x, index):  # log p(foil | the caption's own words before it)
        table = task.decode(x, batch.take(index), targets.ids[index, :-1])
        return table.gather(2, foils[index, :, None]).squeeze(2)

    _, weights = channel_weights(of_foils, a, targets.rows.double(), gradients.looped)
    expected = cam.grad_cam(weights, a)
    words, contrast = explain(task, batch, targets), explain(task, batch, targets.rather_than(foils))
    for i, n in enumerate((3, 1, 4, 2)):
        assert close(contrast[i].signed, words[i].signed - expected[i, :n])


def test_scaling_the_score_scales_the_map():
    batch, targets = pictures(), ragged()
    task = make("classifier")
    before = explain(task, batch, targets)
    with torch.no_grad():
        task.linear.weight.mul_(3)
        task.linear.bias.mul_(3)
    for one, three in zip(before, explain(task, batch, targets), strict=True):
        assert close(three.signed, 3 * one.signed)
        assert close(three.scores, 3 * one.scores)


# Padding, order, splitting


@devices
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", TASKS)
def test_a_sample_alone_is_the_sample_in_a_ragged_batch(name, how, device):
    task, batch, targets = make(name, device, how=how), pictures(4, device), ragged((3, 0, 4, 1))
    together = explain(task, batch, targets)
    assert [len(explanation.words) for explanation in together] == [3, 0, 4, 1]
    for i in range(4):
        assert same_maps(
            explain(task, batch.take(torch.tensor([i], device=device)), alone(targets, i)), together[i : i + 1]
        )


@pytest.mark.parametrize("name", TASKS)
def test_what_the_padding_holds_does_not_matter(name):
    task, batch, targets = make(name), pictures(), ragged()
    longer = F.pad(targets.ids, (0, 2), value=7).where(F.pad(targets.mask, (0, 2)), 9)
    padded = Targets(longer, F.pad(targets.mask, (0, 2)), targets.words, F.pad(targets.rows, (0, 2, 0, 3)))
    assert same_maps(explain(task, batch, padded), explain(task, batch, targets))


@pytest.mark.parametrize("bad", [-torch.inf, torch.nan])
def test_a_score_without_a_row_is_not_added(bad):
    # A model may forbid some words: log p = -inf. A row that does not ask for them has a score all the same.
    task = Given(lambda a: torch.stack([a[:, 0].mean((1, 2)), torch.full((len(a),), bad, dtype=a.dtype)], 1))
    batch, targets = pictures(2), ragged((2, 1))
    first, second = explain(task, batch, targets)
    assert close(second.scores, batch.images[1:, 0].mean((1, 2)))
    assert torch.isfinite(first.scores).tolist() == [True, False]
    assert torch.isfinite(first.signed).all()


@devices
@pytest.mark.parametrize("name", ["convolved", "answerer", "attention", "lstm"])
def test_permuting_the_batch_permutes_the_maps(name, device):
    task, batch, targets = make(name, device), pictures(4, device), ragged()
    order = torch.tensor([2, 0, 3, 1, 0])
    there = explain(task, batch.take(order.to(device)), targets.take(order))
    here = explain(task, batch, targets)
    assert same_maps(there, [here[i] for i in order.tolist()])


@pytest.mark.parametrize("name", TASKS)
def test_splitting_the_batch_splits_the_maps(name):
    task, batch, targets = make(name), pictures(), ragged()
    halves = [torch.tensor([0]), torch.tensor([1, 2, 3])]
    parts = [explain(task, batch.take(half), targets.take(half)) for half in halves]
    assert same_maps(parts[0] + parts[1], explain(task, batch, targets))


@pytest.mark.parametrize("how", WAYS)
def test_passes_do_not_change_the_maps(how, monkeypatch):
    task, batch, targets = make("attention", how=how), pictures(), ragged()
    whole = {method: explain(task, batch, targets, method) for method in METHODS}
    monkeypatch.setattr(gradients, "MEMORY", 1)
    for method in METHODS:
        assert same_maps(explain(task, batch, targets, method), whole[method], rtol=1e-13)


# Nothing to explain


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("lengths", [(2, 0, 1), (0, 0, 0)])
def test_an_empty_caption_is_an_explanation_without_words(name, lengths, method):
    explanations = explain(make(name), pictures(3), ragged(lengths), method)
    assert [explanation.id for explanation in explanations] == ["picture 0", "picture 1", "picture 2"]
    for explanation, n in zip(explanations, lengths, strict=True):
        assert explanation.signed.shape == (n, 5, 7)
        assert explanation.scores.shape == (n,)
        assert len(explanation.flags) == len(explanation.words) == n


@pytest.mark.parametrize("name", ["classifier", "plain"])
def test_a_model_may_say_nothing(name):
    class Silent(type(make(name))):
        def predict(self, activations, batch):
            return Targets.of([[]] * len(batch), [[]] * len(batch), activations.device)

    task = make(name)
    task.__class__ = Silent
    assert [explanation.words for explanation in explain(task, pictures(2))] == [(), ()]
    assert task.calls["scores"] == 0


# What comes with it


@pytest.mark.parametrize("name", ["classifier", "plain"])
def test_the_prediction_is_explained_if_nothing_is_given(name):
    task, batch = make(name), pictures()
    a = task.trunk(batch).detach()
    assert same_maps(explain(task, batch), explain(task, batch, task.predict(a, batch)))


def test_an_explanation_says_what_it_is_of():
    task, batch = make("classifier"), pictures(2)
    batch = replace(batch, windows=((0.0, 1.0, 20.0, 21.0), (0.0, 0.0, 21.0, 28.0)))
    task.layer = "cnn.4"
    explanation = explain(task, batch, method="hires_cam")[0]
    assert (explanation.id, explanation.prompt) == ("picture 0", "question 0?")
    assert (explanation.size, explanation.window) == ((20, 28), (0.0, 1.0, 20.0, 21.0))
    assert (explanation.method, explanation.layer) == ("hires_cam", "cnn.4")


def test_from_pictures_to_explanations():
    samples = [Sample(Image.new("RGB", (14, 10), colour), colour) for colour in ("red", "green")]
    task = make("classifier", dtype=torch.float32)
    red, green = explain(task, task.collate(samples))
    assert (red.id, green.id) == ("red", "green")
    assert red.upsample().shape == (2, 10, 14)


def test_explain_all_goes_through_a_loader_one_batch_at_a_time():
    task, batch = make("plain"), pictures(5)
    asked = []

    def loader():
        for start in (0, 2, 4):
            asked.append(start)
            yield batch.take(torch.arange(5)[start : start + 2])

    explanations = explain_all(task, loader())
    first = next(explanations)
    assert asked == [0]
    assert same_maps([first, *explanations], explain(task, batch))


def test_methods_share_the_trunk_pass():
    task, batch, targets = make("convolved"), pictures(), ragged()
    batch = batch.to("cpu")
    with torch.no_grad():
        a = task.trunk(batch)
    for method in METHODS:
        assert same_maps(explain_activations(task, a, batch, targets, method), explain(task, batch, targets, method))
    assert task.calls == {"trunk": 4, "scores": 6}


def test_activation_norm_is_the_same_for_every_word():
    task, batch, targets = make("plain"), pictures(), ragged()
    norms = task.trunk(batch).detach().norm(dim=1)
    for norm, explanation in zip(norms, explain(task, batch, targets, "activation_norm"), strict=True):
        assert close(explanation.signed, norm.expand_as(explanation.signed))
        assert set(explanation.flags) == {""}


# Nothing changes


def disturbed(task):
    """A model in the middle of training: mixed modes, gradients, frozen parts, hooks."""
    task.train()
    list(task.modules())[2].eval()
    for i, parameter in enumerate(task.parameters()):
        parameter.requires_grad = i % 3 > 0
        parameter.grad = torch.randn_like(parameter) if i % 2 else None
    task.cnn[0].register_forward_hook(lambda module, inputs, output: None)
    task.cnn[0].register_full_backward_hook(lambda module, inputs, outputs: None)
    return task


@devices
@pytest.mark.parametrize("method", ["grad_cam", "hires_cam"])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", TASKS)
def test_nothing_of_the_model_or_the_surroundings_changes(name, how, method, device):
    task, batch = disturbed(make(name, device, how=how)), pictures(3, device)
    images = batch.images.clone()
    with untouched(task):
        explain(task, batch, ragged((2, 3, 0)), method)
        list(explain_all(task, [batch], method))
    assert torch.equal(batch.images, images)
    assert batch.memo == {}


class Failing(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("backward")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("stage", ["trunk", "predict", "scores", "backward", "cam", "explanation"])
def test_nothing_changes_when_a_stage_fails(stage, how, monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError(stage)

    task, batch = disturbed(make("lstm", how=how)), pictures(3)
    if stage in ("trunk", "predict", "scores"):
        monkeypatch.setattr(type(task), stage, fail)
    elif stage == "backward":
        scores = type(task).scores
        monkeypatch.setattr(type(task), "scores", lambda *arguments: Failing.apply(scores(*arguments)))
    elif stage == "cam":
        monkeypatch.setitem(cam.FROM_WEIGHTS, "grad_cam", fail)
    else:
        monkeypatch.setattr("mmcam.engine.Explanation", fail)
    for context in (nullcontext, torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)):
        with context(), untouched(task), pytest.raises(RuntimeError, match=stage):
            explain(task, batch)


def test_training_goes_on_within_the_same_autocast():
    # autocast keeps the weights it has cast: without a graph they would train nothing.
    task, batch = make("classifier", dtype=torch.float32).train(), pictures(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        explain(task, batch, ragged())
        task.scores(task.trunk(batch), batch, ragged()).float().sum().backward()
    assert all(parameter.grad is not None for parameter in task.parameters())


# Callers


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", ["classifier", "answerer", "attention", "lstm"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_does_not_matter(name, how, context):
    task = make(name, how=how)
    torch.manual_seed(1)
    expected = explain(task, pictures(), ragged())
    torch.manual_seed(1)
    with context():
        batch, targets = pictures(), ragged()  # made in that mode
        found = explain(task, batch, targets)
        twice = explain_activations(task, task.trunk(batch), batch, targets)
    assert same_maps(found, expected)
    assert same_maps(twice, expected)
    for e in (*found, *twice):
        assert not any(x.requires_grad or x.is_inference() for x in (e.signed, e.scores))


def test_activations_may_have_a_graph():
    task, batch, targets = make("convolved"), pictures(), ragged()
    expected = explain(task, batch, targets)
    found = explain_activations(task, task.trunk(batch), batch, targets)
    assert same_maps(found, expected)
    assert not any(explanation.signed.requires_grad for explanation in found)


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        task = Classifier().eval()
    with pytest.raises(UserError, match="made under inference_mode"):
        explain(task, pictures(2, dtype=torch.float32), ragged((1, 1)))


@pytest.mark.parametrize("name", TASKS)
def test_train_and_eval_mode_give_the_same(name):
    task, batch, targets = make(name), pictures(), ragged()
    expected = explain(task, batch, targets)
    assert torch.equal(torch.cat(signed(explain(task.train(), batch, targets))), torch.cat(signed(expected)))
    a = copy.deepcopy(task).eval().trunk(batch).detach()
    batch.memo.update({"mean colour": {"x": batch.images.mean((2, 3)).tile(1, 3)[:, :7]}})
    assert same_maps(explain_activations(task, a, batch, targets), expected)


@pytest.mark.parametrize("name", TASKS)
def test_frozen_parameters_give_the_same(name):
    task, batch, targets = make(name), pictures(), ragged()
    expected = explain(task, batch, targets)
    assert same_maps(explain(task.requires_grad_(False), batch, targets), expected, rtol=1e-14)


# Number formats, memory formats


@devices
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.bfloat16, 0.15)])
def test_float32_and_bfloat16_are_near_float64(name, dtype, rtol, device):
    batch, targets = pictures(4, device), ragged()
    exact = explain(make(name, device), batch, targets)
    found = explain(make(name, device, dtype), replace(batch, images=batch.images.to(dtype)), targets)
    assert {explanation.signed.dtype for explanation in found} == {torch.float32}
    assert same_maps(found, exact, rtol)


@devices
@pytest.mark.parametrize("name", TASKS)
def test_autocast_is_near_float64_and_gives_float32(name, device):
    batch, targets = pictures(4, device), ragged()
    exact = explain(make(name, device), batch, targets)
    task = make(name, device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        found = {how: explain(make(name, device, torch.float32, how), batch, targets) for how in WAYS}
        explain(task, batch)
    assert {explanation.signed.dtype for explanation in found["batched"]} == {torch.float32}
    for how in WAYS:
        assert same_maps(found[how], exact, rtol=0.15)


@devices
@pytest.mark.parametrize("name", TASKS)
def test_channels_last_is_contiguous(name, device):
    task, batch, targets = make(name, device), pictures(4, device), ragged()
    expected = {method: explain(task, batch, targets, method) for method in METHODS}
    task = task.to(memory_format=torch.channels_last)
    batch = replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    assert not task.trunk(batch).is_contiguous()
    for method in METHODS:
        found = explain(task, batch, targets, method)
        assert same_maps(found, expected[method])
        assert all(explanation.signed.is_contiguous() for explanation in found)


@pytest.mark.parametrize(("height", "width"), [(7, 31), (32, 6), (4, 40)])
@pytest.mark.parametrize("name", ["classifier", "answerer", "attention"])
def test_pictures_need_not_be_square(name, height, width):
    task, batch, targets = make(name), pictures(2, height=height, width=width), ragged((2, 1))
    explanations = explain(task, batch, targets)
    assert explanations[0].signed.shape[1:] == (-(-height // 2), -(-width // 2))
    for explanation, (_, _, maps) in zip(explanations, loop(task, batch, targets), strict=True):
        assert close(explanation.signed, maps)


@pytest.mark.gpu
@pytest.mark.parametrize("name", TASKS)
def test_batch_and_targets_may_be_elsewhere(name):
    batch, targets = pictures(), ragged().rather_than(torch.full((4, 4), 3))
    task = make(name, "cuda")
    found = explain(task, batch, targets)
    assert same_maps(found, explain(make(name), batch, targets))
    assert same_maps(found, explain(task, batch.to("cuda"), targets.to("cuda")))
    assert found[0].signed.device == found[0].scores.device == torch.device("cpu")


# What is flagged and what is refused


@pytest.mark.parametrize("how", WAYS)
def test_a_score_that_does_not_depend_on_the_layer_gives_zeros(how):
    task = make("classifier", how=how)
    nn.init.zeros_(task.linear.weight)
    assert [explanation.flags for explanation in explain(task, pictures(2), ragged((2, 1)))] == [
        ("zero",) * 2,
        ("zero",),
    ]

    class Blind(type(task)):
        def scores(self, activations, batch, targets):
            return targets.pick(batch.inputs["question"].double().mean(1, keepdim=True).expand(-1, 11))

    task.__class__ = Blind
    explanations = explain(task, pictures(2), ragged((2, 1)))
    assert [explanation.flags for explanation in explanations] == [("zero",) * 2, ("zero",)]
    assert explanations[0].scores.any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", TASKS)
def test_a_broken_model_is_flagged(name, bad):
    task = make(name)
    with torch.no_grad():
        task.cnn[0].weight.fill_(bad)
    for explanation in explain(task, pictures(2), ragged((2, 1))):
        assert set(explanation.flags) == {"non-finite"}


def test_one_broken_picture_spoils_no_other():
    task, batch, targets = make("attention"), pictures(3), ragged((2, 1, 2))
    expected = explain(task, batch, targets)
    batch.images[1] = torch.nan
    found = explain(task, batch, targets)
    assert found[1].flags == ("non-finite",)
    assert same_maps(found[::2], expected[::2])


def test_negative_maps_are_flagged():
    task = Given(lambda a: -a.square().sum((1, 2, 3))[:, None].expand(-1, 3))
    batch = replace(pictures(1), images=torch.rand(1, 3, 4, 4).double() + 0.1)
    assert explain(task, batch, ragged((2,)))[0].flags == ("negative", "negative")
    assert explain(task, batch, ragged((2,)).negative())[0].flags == ("", "")


@pytest.mark.parametrize(
    ("trunk", "match"),
    [
        (lambda images: images.mean((2, 3), keepdim=True), "1 x 1 maps"),
        (lambda images: images.mean((2, 3)), r"\(b, k, h, w\) with b = 2; got \(2, 3\)"),
        (lambda images: images.flatten(2), r"got \(2, 3, 140\); choose a layer before pooling"),
        (lambda images: images[:1], r"b = 2; got \(1, 3, 10, 14\)"),
    ],
)
def test_activations_that_are_no_maps_are_refused(trunk, match):
    task = Given(lambda a: a.sum((1, 2, 3))[:, None], trunk)
    task.layer, batch = "the pool", pictures(2)
    with untouched(task), pytest.raises(UserError, match=match) as caught:
        explain(task, batch, ragged((1, 1)))
    assert "the pool" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_targets_of_other_samples_are_refused():
    with pytest.raises(UserError, match="targets for 3 samples, got them for 2"):
        explain(make("classifier"), pictures(3), ragged((1, 1)))


def test_an_unknown_method_is_refused_before_the_model_runs():
    task = make("classifier")
    with pytest.raises(UserError, match="unknown method 'gradcam': did you mean 'grad_cam'"):
        explain(task, pictures(2), method="gradcam")
    assert not task.calls


def test_scores_of_another_shape_are_refused():
    task = Given(lambda a: a.mean((1, 2, 3)))
    with unchecked(), pytest.raises((ValueError, IndexError)):
        explain(task, pictures(2), ragged((1, 1)))
