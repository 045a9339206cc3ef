"""Looks: equal to `mmcam.explain`, one trunk pass a picture, and nothing shared between users."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

import mmcam
from mmcam.demo import drawn
from mmcam.demo.looks import again, heard_by, look, phrase, side_by_side
from mmcam.demo.samples import samples
from mmcam.errors import UserError
from mmcam.task import Sample


def picture(number=2):
    return samples()[number].picture


@pytest.fixture
def passes(served, monkeypatch):
    """Counts trunk passes."""
    task = served["captioning"].task
    count = []
    trunk = task.trunk
    monkeypatch.setattr(task, "trunk", lambda batch: count.append(1) or trunk(batch))
    return count


def test_maps_and_scores_are_those_of_explain(served):
    task = served["captioning"].task
    (expected,) = mmcam.explain(task, task.collate([Sample(picture(), "picture")]))
    found = look(served["captioning"], picture())
    assert found.words == expected.words
    torch.testing.assert_close(found.explanation.signed, expected.signed)
    torch.testing.assert_close(torch.tensor(found.probabilities).log(), expected.scores, rtol=1e-4, atol=1e-5)


def test_one_trunk_pass_a_picture(served, passes):
    found = look(served["captioning"], picture())
    for number in range(len(found.words)):
        phrase(found, [number])
    phrase(found, [0, 1])
    phrase(found, range(len(found.words)))
    again(found, "a dog")
    again(found, method="grad_cam_plus_plus")
    assert len(passes) == 1
    heard_by(found, [1])  # which looks at a blank picture, twice
    assert len(passes) == 3


def test_a_click_takes_no_longer_than_50_ms_of_this_thread(served):
    found = look(served["captioning"], picture())
    drawn.figure(found, [0], "viridis", 0.5, "own")
    times = []
    for number in range(len(found.words)):
        start = time.thread_time()
        drawn.figure(found, [number], "jet", 0.5, "joint")
        times.append(time.thread_time() - start)
    assert min(times) < 0.05


def test_the_map_of_a_phrase_is_the_sum_of_its_words_maps(served):
    """Grad-CAM before ReLU is linear in the score."""
    found = look(served["captioning"], picture())
    joined = phrase(found, [3, 4, 3])
    torch.testing.assert_close(joined.signed[0], found.explanation.signed[3:5].sum(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(joined.scores[0], found.explanation.scores[3:5].sum())
    assert joined.words == (" ".join(found.words[3:5]),)


def test_words_that_are_apart_can_be_joined(served):
    found = look(served["captioning"], picture())
    joined = phrase(found, [4, 0])
    torch.testing.assert_close(joined.signed[0], found.explanation.signed[[0, 4]].sum(0), rtol=1e-4, atol=1e-6)


def test_the_users_own_text_and_contrast(served):
    found = look(served["captioning"], picture(), text="a dog and a bed")
    assert found.words == ("a", "dog", "and", "a", "bed")
    one, other = (again(found, text).explanation for text in ("dog", "cat"))
    contrast = again(found, "dog/cat")
    assert contrast.words == ("dog rather than cat",)
    assert contrast.probabilities == (None,)
    torch.testing.assert_close(contrast.explanation.signed, one.signed - other.signed, rtol=1e-3, atol=1e-5)


def test_five_answers_with_probabilities_best_first(served):
    asked = samples()[2].questions[0]
    found = look(served["vqa"], picture(), asked, method="grad_cam")
    assert len(found.words) == 5
    assert list(found.probabilities) == sorted(found.probabilities, reverse=True)
    assert 0.5 < sum(found.probabilities) <= 1 + 1e-6
    assert drawn.chips(found)[0][0].startswith(found.words[0])
    why = again(found, f"{found.words[0]} rather than {found.words[1]}", "grad_cam")
    torch.testing.assert_close(
        why.explanation.scores[0], found.explanation.scores[0] - found.explanation.scores[1], rtol=1e-4, atol=1e-4
    )


def test_five_classes_and_any_of_all(served):
    found = look(served["classification"], picture())
    assert len(found.words) == 5
    assert set(found.words) <= set(served["classification"].known)
    assert again(found, "cat, dog").words == ("cat", "dog")


def test_another_layer_of_the_same_model(served):
    one = served["captioning"]
    assert one.layers[0] == one.task.layer
    other = look(one, picture(), layer=one.layers[3])
    assert other.explanation.layer == one.layers[3]
    assert one.at(one.layers[3]) is one.at(one.layers[3])
    assert other.key != look(one, picture()).key
    with pytest.raises(UserError, match="unknown layer"):
        look(one, picture(), layer="os.system")


def test_guided_grad_cam_is_the_product(served):
    """Where Grad-CAM is zero the product is grey; where guided backpropagation is grey, too."""
    found = look(served["captioning"], picture())
    three = side_by_side(found, [1])
    guided, product = (torch.tensor(list(image.get_flattened_data())) for image in (three.guided, three.product))
    still = (guided - 127.5).abs().amax(1) < 1
    assert still.any()
    assert (product[still] - 127.5).abs().max() < 4
    assert three.cam.words == (found.words[1],)


def test_words_heard_sum_to_what_the_page_says(served):
    asked = samples()[2].questions[0]
    row = heard_by(look(served["vqa"], picture(), asked, method="grad_cam"), [0])
    assert row.heard == tuple(asked.split())
    page = drawn.words_heard(row)
    assert all(f"{value:+.2f}" in page for value in row.heard_scores[0].tolist())


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("captioning", {"text": "a zebro"}, "zebra"),
        ("captioning", {"method": "grad_kam"}, "grad_cam"),
        ("captioning", {"text": "a" * 501}, "at most 500"),
        ("captioning", {"method": "rollout"}, "attention"),
        ("vqa", {"question": ""}, "question"),
        ("vqa", {"question": "is there a zzz ?"}, "zzz"),
        ("classification", {"text": "dogg"}, "dog"),
    ],
)
def test_mistakes_are_told_in_words(served, kind, arguments, words):
    with pytest.raises(UserError, match=words):
        look(served[kind], picture(), **arguments)


def test_a_word_that_is_not_there(served):
    found = look(served["captioning"], picture())
    for rows in ([], [-1], [99]):
        with pytest.raises(UserError, match="expected"):
            phrase(found, rows)


def test_a_photo_of_many_pixels_is_shown_small_and_recorded_large(served):
    large = picture().resize((3000, 2000))
    found = look(served["captioning"], large)
    assert found.picture.size == (768, 512)
    record = drawn.record(found, "x")
    assert record["size"] == [2000, 3000]
    (expected,) = mmcam.explain(served["captioning"].task, served["captioning"].task.collate([Sample(large, "p")]))
    for mine, exact in zip(record["peaks"], expected.peaks(), strict=True):
        assert all(abs(a - b) <= 4 for a, b in zip(mine, exact, strict=True))  # a pixel shown is 4 of the photo


def test_text_of_the_user_is_no_markup(served):
    found = look(served["captioning"], picture())
    found = replace(found, shown=replace(found.shown, words=('<script>"', *found.words[1:])))
    page = drawn.figure(found, [0], "viridis", 0.5, "own")
    assert "<script>" not in page
    assert "&lt;script&gt;&quot;" in page


def test_scales(served):
    """By hand: on the common scale the weaker map is fainter by the ratio of the peaks."""
    found = look(served["captioning"], Image.new("RGB", (96, 96)))
    signed = torch.zeros(2, 4, 4)
    signed[0], signed[1] = 1.0, 4.0
    made = replace(found.shown, words=("x", "y"), scores=torch.zeros(2), signed=signed)
    found = replace(found, shown=made, probabilities=(None, None), peaks=(1.0, 4.0))
    weak = drawn.figure(found, [0], "gray", 1.0, "joint")
    strong = drawn.figure(found, [0], "gray", 1.0, "own")
    assert [_first_pixel(page) for page in (weak, strong)] == [(64, 64, 64), (255, 255, 255)]
    with pytest.raises(UserError, match="scale"):
        drawn.figure(found, [0], "gray", 1.0, "none")


def test_threads_with_different_pictures_get_what_they_would_get_alone(served):
    """Eight users at once on each of three models."""
    jobs = [
        (kind, number, question, layer)
        for number in range(8)
        for kind, question in (("captioning", ""), ("vqa", samples()[number].questions[0]), ("classification", ""))
        for layer in (("", served[kind].layers[2]) if number % 2 else ("",))
    ]

    def explain(job):
        kind, number, question, layer = job
        return look(served[kind], picture(number), question, method="grad_cam", layer=layer)

    alone = [explain(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(explain, jobs))
    for one, other in zip(alone, together, strict=True):
        assert one.words == other.words
        torch.testing.assert_close(one.explanation.signed, other.explanation.signed)
    assert len({(look.words, float(look.explanation.signed.sum())) for look in together}) > 16


def _first_pixel(page):
    import base64
    import io
    import re

    data = re.search(r'src="data:image/jpeg;base64,([^"]+)"', page).group(1)
    return Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0))
