from contextlib import contextmanager
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.hf import HFCaptioningTask
from mmcam import UserError, explain
from mmcam.engine import explain_activations
from mmcam.huggingface.features import Features, fallback
from mmcam.huggingface.leaf import NONE, Tower
from mmcam.huggingface.task import Generation
from mmcam.task import Sample
from tests.huggingface import tiny
from vqa.hf import HFVQATask

SILENT = ("vilt", "vit", "deit", "swin", "convnext", "resnet", "dinov2")
SPEAKING = [name for name in tiny.FAMILIES if name not in SILENT]
pytestmark = [pytest.mark.filterwarnings(w) for w in tiny.UNAVOIDABLE]


ROWLESS = ["llava without a row", "gemma3 without a row", "qwen2.5-vl without a row"]


@pytest.fixture(scope="module", params=[*SPEAKING, *ROWLESS])
def case(request):
    return Case(request.param)


class Case:
    """A tiny model, two pictures of its size, and what it makes of them."""

    def __init__(self, name):
        name, _, rowless = name.partition(" ")
        self.name, self.tiny = name, tiny.build(name)
        family = fallback(self.tiny.model.config) if rowless else None
        asked = "" if self.tiny.kind == "caption" else "what is left of the dog?"
        longer = "" if self.tiny.kind == "caption" else "what is left of the red dog?"
        self.task = HFCaptioningTask(
            self.tiny.model, self.tiny.processor, family=family, generation=Generation(length=4)
        )
        self.samples = [Sample(picture(self.tiny.size, 0), "a", asked), Sample(picture(self.tiny.size, 1), "b", longer)]
        self.batch = self.task.collate(self.samples)
        with torch.no_grad():
            self.activations = self.task.trunk(self.batch)
        self.targets = self.task.predict(self.activations, self.batch)

    def logits(self, activations=None):
        activations = self.activations if activations is None else activations
        return self.task.speaker.logits(activations, self.batch, self.targets.ids, self.targets.mask)


def picture(size, seed):
    noise = np.random.RandomState(seed).randint(0, 255, (size[0], size[1], 3), np.uint8)
    return Image.fromarray(noise)


@contextmanager
def other_forwards(model, others):
    """What a twin does with modules besides the tower's, done to the model itself."""
    modules = [model.get_submodule(name) for name in others]
    for module, wrap in zip(modules, others.values(), strict=True):
        module.forward = wrap(module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


class Whole(Tower):
    """Runs the whole model, of which nothing is cut, and keeps the leaf."""

    def above(self, leaf, run, tapped="", others=NONE):
        self.kept = None

        def keep(output):
            self.kept = [x for _, x in self._places(output)]
            [x.retain_grad() for x in self.kept if x.requires_grad]

        module, kept = self.model.get_submodule(self.leaf), {}
        if self.side == "in":
            hook = module.register_forward_pre_hook(
                lambda m, args, kwargs: keep(args[0] if args else next(iter(kwargs.values()))), with_kwargs=True
            )
        else:
            hook = module.register_forward_hook(lambda m, args, output: keep(output))
        tap = None
        if tapped:
            tap = self.model.get_submodule(tapped).register_forward_hook(lambda m, a, o: kept.update(output=o))
        try:
            with other_forwards(self.model, others):
                output = run(self.model)
        finally:
            hook.remove()
            if tap:
                tap.remove()
        return kept.get("output", output)


class WholeFeatures(Features):
    """The same for models that are cut at a method."""

    def above(self, leaf, run, tapped="", others=NONE):
        inner = next(m for m in self.model.modules() if "get_image_features" in vars(type(m)) and m is not self.model)
        method = inner.get_image_features

        def keep(*args, **kwargs):
            output = method(*args, **kwargs)
            tokens = output.pooler_output
            self.kept = [tokens] if isinstance(tokens, torch.Tensor) else list(tokens)
            [x.retain_grad() for x in self.kept if x.requires_grad]
            return output

        inner.get_image_features = wraps(method)(keep)
        try:
            with other_forwards(self.model, others):
                return run(self.model)
        finally:
            del inner.get_image_features


def whole(task):
    """The task's tower, uncut."""
    tower = task.speaker._tower
    if isinstance(tower, Features):
        return WholeFeatures(tower.model)
    return Whole(tower.model, tower.towers, tower.leaf, tower.side, tower.fields)


def test_says_words_with_maps_of_the_pictures(case):
    for e in explain(case.task, case.batch, case.targets):
        assert len(e.words) >= 1
        assert set(e.flags) <= {"", "negative"}
        assert e.size == case.tiny.size
        assert e.window[2] > e.window[0]


def test_teacher_forced_is_generated(case):
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    with torch.no_grad():
        logits = case.logits()
    for i, sample in enumerate(case.samples):
        with torch.no_grad():
            batch = case.task.collate([sample])
            steps = case.task.speaker.generate(case.task.trunk(batch), batch, **options).logits
        n = int(case.targets.mask[i].sum())
        steps = torch.cat(steps)[:n]
        same = torch.isfinite(steps)  # forced and forbidden tokens have logits of minus infinity
        assert n >= 1
        torch.testing.assert_close(logits[i, :n][same], steps[same].float(), atol=5e-5, rtol=1e-4)


def test_replay_is_rerun(case):
    with torch.no_grad():
        cut = case.logits()
        case.task.speaker._tower, tower = whole(case.task), case.task.speaker._tower
        try:
            uncut = case.logits()
        finally:
            case.task.speaker._tower = tower
    torch.testing.assert_close(cut, uncut, atol=1e-6, rtol=1e-5)


def test_gradient_of_the_head_is_that_of_the_whole_graph(case):
    # Questions of one length: BLIP answers them together then.
    batch = case.task.collate([replace(s, text=case.samples[0].text) for s in case.samples])
    activations = case.task.trunk(batch).requires_grad_()
    y = case.task.scores(activations, batch, case.targets)
    (found,) = torch.autograd.grad((y * case.targets.mask).sum(), activations)
    speaker, tower = case.task.speaker, case.task.speaker._tower
    speaker._tower = whole(case.task)
    for parameter in case.tiny.model.parameters():
        parameter.requires_grad_(True)
    try:
        y = case.task.scores(activations, batch, case.targets)
        (y * case.targets.mask).sum().backward()
        kept = speaker._tower.kept
        wanted, _ = speaker._grid(batch, batch.memo["shape"]).spread([x.grad for x in kept])
    finally:
        speaker._tower = tower
        for parameter in case.tiny.model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
    assert found.abs().max() > 0
    torch.testing.assert_close(found, wanted, atol=1e-6 * float(wanted.abs().max()), rtol=1e-4)


def test_batch_is_single(case):
    together = explain(case.task, case.batch, case.targets)
    for i, sample in enumerate(case.samples):
        batch = case.task.collate([sample])
        (alone,) = explain(case.task, batch, case.targets.take(torch.tensor([i])))
        torch.testing.assert_close(alone.scores, together[i].scores, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            alone.signed, together[i].signed, atol=2e-4 * float(alone.signed.abs().max()), rtol=1e-3
        )


def test_tower_works_once(case):
    speaker, runs = case.task.speaker, []
    names = [*speaker._tower.towers, *([speaker.layer] if speaker._tower.side == "out" else [])]
    if speaker.layer == "get_image_features":
        names = ["model.visual"] if case.name == "qwen2.5-vl" else ["model.vision_tower"]
    hooks = [case.tiny.model.get_submodule(n).register_forward_hook(lambda m, a, o: runs.append(1)) for n in names]
    try:
        explain(case.task, case.task.collate(case.samples))
    finally:
        [hook.remove() for hook in hooks]
    assert len(runs) == len(names)


def test_what_changes_in_the_picture_moves_the_map_there(case):
    """Paint over a part of the picture: the places whose activations move most are those over that part.

    Florence-2's convolutions overlap, so there the neighbour may move more.
    """
    (h, w), asked = case.tiny.size, case.samples[0].text
    plain_picture = picture(case.tiny.size, 2)  # not of one colour: Pix2Struct divides by a picture's own contrast
    plain = case.task.collate([Sample(plain_picture, "plain", asked)])
    with torch.no_grad():
        before = case.task.trunk(plain)
    (empty,) = case.task.laid(torch.zeros(1, 1, *before.shape[2:]), plain)
    rows, columns = empty.shape[1:]
    top, left, bottom, right = plain.windows[0]
    cells, samples = [], []
    for row in range(rows):
        for column in range(columns):
            cell = [
                top + (bottom - top) * row / rows,
                left + (right - left) * column / columns,
                top + (bottom - top) * (row + 1) / rows,
                left + (right - left) * (column + 1) / columns,
            ]
            inside = [round(max(cell[0], 0)), round(max(cell[1], 0)), round(min(cell[2], h)), round(min(cell[3], w))]
            share = (inside[2] - inside[0]) * (inside[3] - inside[1]) / ((cell[2] - cell[0]) * (cell[3] - cell[1]))
            if inside[2] <= inside[0] or inside[3] <= inside[1] or share < 0.5:
                continue  # padding
            painted = plain_picture.copy()
            painted.paste((255, 0, 0), (inside[1], inside[0], inside[3], inside[2]))
            cells.append((row, column))
            samples.append(Sample(painted, f"{row} {column}", asked))
    batch = case.task.collate(samples)
    with torch.no_grad():
        moved = (case.task.trunk(batch) - before).norm(dim=1, keepdim=True)
    found = [divmod(int(laid[0].argmax()), columns) for laid in case.task.laid(moved, batch)]
    near = case.name == "florence-2"
    hits = sum(max(abs(r - row), abs(c - column)) <= near for (r, c), (row, column) in zip(found, cells, strict=True))
    assert len(cells) >= 4
    assert hits >= 0.9 * len(cells), f"{hits} of {len(cells)}"


def test_a_layer_on_which_nothing_depends_is_refused():
    """A hook there would draw an empty map: LLaVA reads the tower's last layer but one."""
    llava, vilt = tiny.build("llava"), tiny.build("vilt")
    task = HFCaptioningTask(llava.model, llava.processor, layer="model.vision_tower")
    with pytest.raises(UserError, match="reads more of its tower than this layer"):
        task.trunk(task.collate([Sample(picture(llava.size, 0), "a", "what?")]))
    task = HFVQATask(vilt.model, vilt.processor, layer="vilt.encoder.layer.2")
    with pytest.raises(UserError, match="choose an earlier layer"):
        task.trunk(task.collate([Sample(picture(vilt.size, 0), "a", "what?")]))


def test_qwen3_without_a_row_is_refused():
    """Its language model also reads features of layers in between, which the fallback does not know."""
    qwen = tiny.build("qwen3-vl")
    task = HFCaptioningTask(qwen.model, qwen.processor, family=fallback(qwen.model.config))
    with pytest.raises(UserError, match="reads more of its tower"):
        task.trunk(task.collate([Sample(picture(qwen.size, 0), "a", "what?")]))


def test_unknown_layers_name_the_nearest():
    blip = tiny.build("blip")
    with pytest.raises(UserError, match=r"vision_model\.encoder\.layers\.1"):
        HFCaptioningTask(blip.model, blip.processor, layer="vision_model.encoder.layer.1")


def test_an_inner_layer_can_be_explained():
    blip = tiny.build("blip")
    task = HFCaptioningTask(
        blip.model, blip.processor, layer="vision_model.encoder.layers.0", generation=Generation(length=3)
    )
    (e,) = explain(task, task.collate([Sample(picture(blip.size, 0), "a")]))
    assert set(e.flags) <= {"", "negative"}


@pytest.mark.parametrize("name", ["blip", "llava", "qwen2.5-vl", "git", "vit-gpt2", "llava-next", "blip-vqa"])
def test_beam_search_runs_the_tower_once(name):
    built = tiny.build(name)
    how = Generation(length=4, beam=3)
    task = HFCaptioningTask(built.model, built.processor, generation=how)
    asked = "" if built.kind == "caption" else "what is that?"
    batch = task.collate([Sample(picture(built.size, i), str(i), asked) for i in range(2)])
    activations, runs, tower = task.trunk(batch), [], task.speaker._tower
    names = [*tower.towers, *([task.layer] if tower.side == "out" else [])]
    hooks = [built.model.get_submodule(n).register_forward_hook(lambda m, a, o: runs.append(1)) for n in names]
    said = task.spoken(activations, batch)
    [hook.remove() for hook in hooks]
    assert not runs
    task.speaker._tower = whole(task)
    assert said == task.spoken(activations, batch)


def test_sampling_is_seeded_and_leaves_the_caller_s_random_numbers_alone():
    blip = tiny.build("blip")
    how = [Generation(length=8, sample=True, seed=seed) for seed in (1, 1, 2)]
    tasks = [HFCaptioningTask(blip.model, blip.processor, generation=one) for one in how]
    batch = tasks[0].collate([Sample(picture(blip.size, 0), "a")])
    before = torch.get_rng_state()
    said = [task.spoken(task.trunk(batch), batch) for task in tasks]
    assert said[0] == said[1] != said[2]
    assert torch.equal(before, torch.get_rng_state())


def test_several_questions_share_one_look():
    llava = tiny.build("llava")
    task = HFVQATask(llava.model, llava.processor, generation=Generation(length=3))
    image = picture(llava.size, 0)
    batch = task.collate([Sample(image, "a", "what is left of the dog?")])
    other = task.collate([Sample(image, "a", "what is that?")])
    activations = task.trunk(batch)
    other.memo.update(batch.memo)
    alone = task.collate([Sample(image, "a", "what is that?")])
    targets = task.predict(task.trunk(alone), alone)
    (shared,) = explain_activations(task, activations, other, targets)
    (own,) = explain(task, alone, targets)
    torch.testing.assert_close(shared.signed, own.signed)


def test_bfloat16_has_maps_like_float32():
    (a, b) = (tiny.build("llava") for _ in range(2))
    b.model.to(torch.bfloat16)
    maps = []
    for built in (a, b):
        task = HFCaptioningTask(built.model, built.processor)
        batch = task.collate([Sample(picture(built.size, 0), "a", "what?")])
        (e,) = explain(task, batch, task.given(["a red dog"], batch))
        maps.append(e.signed.flatten().float())
    assert torch.cosine_similarity(*maps, dim=0) > 0.95
