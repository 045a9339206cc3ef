import random

import pytest
import torch

from mmcam.metrics.grounded import GroundedF1, GroundedF1PerSentence, Judged, Sentence, judge_words, sentence_f1
from tests.metrics import naive
from tests.metrics.cases import boxed, make_case

HERE, THERE = (0, 0, 4, 2), (6, 2, 10, 6)


def judged(said, true, unannotated=()):
    boxes = torch.tensor([box for _, box in said], dtype=torch.float32).view(-1, 4)
    truth = [torch.tensor(own, dtype=torch.float32) for _, own in true]
    return judge_words([n for n, _ in said], boxes, [n for n, _ in true], truth, unannotated)


def some_captions(n=60):
    places = [(0, 0, 4, 4), (0, 0, 4, 3), (1, 0, 4, 4), (4, 2, 7, 6), (3, 2, 7, 6), (8, 1, 9, 6)]

    def box():
        return random.choice(places)

    names = ["cat", "dog", "cow", "bird", "fish"]
    return [
        (
            [(random.choice(names), box()) for _ in range(random.randint(0, 4))],
            [
                (random.choice(names[:4]), [box() for _ in range(random.randint(1, 2))])
                for _ in range(random.randint(0, 3))
            ],
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("only_right", [False, True])
def test_the_published_script_read_again(only_right):
    captions = some_captions()
    metric = GroundedF1(only_right)
    for unit, caption in enumerate(captions):
        metric.update(Sentence(judged(*caption), unit))
    figure = metric.compute()
    assert figure.value == pytest.approx(naive.entities(captions, only_right))
    assert figure.low < figure.value < figure.high
    assert 0.1 < figure.value < 0.9


def test_a_caption_by_hand():
    said = [("cat", HERE), ("dog", HERE), ("cow", THERE), ("man", HERE)]
    true = [("cat", [HERE]), ("dog", [THERE]), ("dog", [HERE]), ("sky", [HERE])]
    words = judged(said, true, unannotated=("man",))
    # Said: cat found; dog held against the first dog, wrong; cow hallucinated; man forgiven.
    assert list(words[:3]) == [
        Judged("cat", True, True, True),
        Judged("dog", True, True, False),
        Judged("cow", True, False, False),
    ]
    # True: cat found; the first dog not, the second found; sky missed.
    assert [(word.matched, word.found) for word in words[3:]] == [
        (True, True),
        (True, False),
        (True, True),
        (False, False),
    ]
    assert sentence_f1(words) == pytest.approx(2 * (1 / 3) * (2 / 4) / (1 / 3 + 2 / 4))
    assert sentence_f1(words, right_words_only=True) == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    metric = GroundedF1()
    metric.update(Sentence(words, 0))
    # Of the classes cat, dog and sky: precision (1 + 0 + 0) / 3, recall (1 + 1/2 + 0) / 3.
    assert metric.compute().value == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert metric.compute().n == 7
    right = GroundedF1(right_words_only=True)
    right.update(Sentence(words, 0))
    assert right.compute().value == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert right.compute().n == 5


def test_sentences_without_words_are_excluded_and_wrong_ones_are_zero():
    assert sentence_f1(judged([], [("cat", [HERE])])) != sentence_f1(judged([], [("cat", [HERE])]))  # NaN
    assert sentence_f1(judged([("cat", THERE)], [("cat", [HERE])])) == 0
    metric = GroundedF1PerSentence()
    metric.update(Sentence(judged([], []), 0))
    metric.update(Sentence(judged([("cat", HERE)], [("cat", [HERE])]), 1))
    metric.update(Sentence(judged([("dog", HERE)], [("cat", [HERE])]), 2))
    figure = metric.compute()
    assert (figure.value, figure.n, figure.excluded) == (0.5, 2, 1)


def test_only_hallucinations():
    metric = GroundedF1()
    metric.update(Sentence(judged([("cat", HERE)], []), 0))
    assert metric.compute().value != metric.compute().value  # there is no class to mean over


def test_one_half_is_enough():
    assert judged([("cat", (0, 0, 2, 2))], [("cat", [(0, 0, 2, 4)])])[0].found
    assert not judged([("cat", (0, 0, 2, 2))], [("cat", [(0, 0, 2, 5)])])[0].found


def test_of_a_case():
    things = boxed(HERE, THERE, HERE, names=("cat", "dog", "dog"))
    here, there = torch.zeros(1, 6, 10), torch.zeros(1, 6, 10)
    here[:, :2, :4], there[:, 2:6, 6:10] = 1, 1
    for kind, only_right, value in (
        (GroundedF1, False, 1),  # cat and dog found, each by its own word; the cow is of no class
        (GroundedF1, True, 1),
        (GroundedF1PerSentence, False, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        (GroundedF1PerSentence, True, 1),
    ):
        metric = kind(only_right)
        metric.update(
            make_case(torch.cat([here, there, here]), ((0,), (1, 2), ()), things, words=("kitten", "dogs", "cow"))
        )
        assert metric.compute().value == pytest.approx(value)


def test_a_word_for_several_kinds_goes_by_the_kind_its_box_fits():
    things = boxed(HERE, THERE, names=("cat", "dog"))
    there = torch.zeros(1, 6, 10)
    there[:, 2:6, 6:10] = 1
    metric = GroundedF1()
    metric.update(make_case(there, ((0, 1),), things, words=("animals",)))
    assert metric.compute().value == pytest.approx(0.5)  # the dog is found, the cat never said


def test_figures_of_two_halves_merge_and_later_captions_count():
    captions, whole, halves = some_captions(20), GroundedF1(), (GroundedF1(), GroundedF1())
    seen = []
    for unit, caption in enumerate(captions):
        whole.update(Sentence(judged(*caption), unit))
        halves[unit >= 12].update(Sentence(judged(*caption), unit))
        seen.append(whole.compute().n)
    halves[0].merge_state(halves[1])
    assert halves[0].compute() == whole.compute()
    assert seen == sorted(seen)
    assert seen[-1] > seen[10]


def test_the_interval_is_that_of_the_script_on_resampled_pictures():
    captions, metric = some_captions(30), GroundedF1()
    for unit, caption in enumerate(captions):
        metric.update(Sentence(judged(*caption), unit))
    draws = torch.randint(30, (1000, 30), generator=torch.Generator().manual_seed(0)).tolist()
    scores = sorted(naive.entities([captions[i] for i in draw], False) for draw in draws)
    figure = metric.compute()
    assert (figure.low, figure.high) == pytest.approx((scores[25], scores[974]), abs=0.01)
    assert figure.low > 0
