"""Against coco-caption's own classes (pycocoevalcap), numbers by hand, and what must hold of any corpus."""

import logging
import math
import random
import subprocess
import sys

import nltk.data
import pytest
import torch
from pycocoevalcap.bleu.bleu import Bleu as CocoBleu
from pycocoevalcap.cider.cider import Cider as CocoCider
from pycocoevalcap.rouge.rouge import Rouge as CocoRouge
from torchmetrics import MetricCollection

from captioning.metrics import Bleu, CiderD, DocumentFrequencies, Meteor, RougeL, text_metrics, words_of
from captioning.metrics.bleu import bleu, bleu_counts
from captioning.metrics.cider import cider_d
from captioning.metrics.meteor import meteor, wordnet
from captioning.metrics.rouge import rouge_l
from mmcam.errors import UserError

# Captions and their references, of words that are tokens already.
BY_HAND = [
    ("a cat with green eyes", ["a cat with green eyes looks at the camera", "the cat has a white chin"]),
    ("a cup of coffee on a saucer", ["a cup of coffee on a wooden table", "black coffee in a cup next to a spoon"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("dog", ["a dog", "dog", "two dogs"]),
    ("a dog runs", ["a very long reference about a brown dog that runs along the beach in the evening sun"]),
    ("a man and a man and a man and a man ride a horse and a horse", ["a man rides"]),
    ("ein café 日本 на столе", ["café 日本 на столе", "ein tisch"]),
    ("", ["a red bus"]),
    ("nothing in common here", ["a red bus parked outside"]),
]


def random_corpus(seed, n=40, words=12, least=0):
    chance = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(words)]

    def sentence(short):
        return " ".join(chance.choices(vocabulary, k=chance.randint(short, 14)))

    return [(sentence(least), [sentence(1) for _ in range(chance.randint(1, 5))]) for _ in range(n)]


CORPORA = {
    "by hand": BY_HAND,
    "random": random_corpus(0),
    "few words": random_corpus(1, words=3),
    "many words": random_corpus(2, words=200),
    "long captions": random_corpus(3, n=5, least=10),
    "one reference": [(said, references[:1]) for said, references in random_corpus(4)],
}


@pytest.fixture(params=CORPORA)
def corpus(request):
    return CORPORA[request.param]


def theirs(scorer, corpus, **kwargs):
    references = {i: list(references) for i, (_, references) in enumerate(corpus)}
    return scorer.compute_score(references, {i: [said] for i, (said, _) in enumerate(corpus)}, **kwargs)


def ours(metric, corpus):
    said, references = zip(*corpus, strict=True)
    metric.update(list(said), list(references), list(range(len(corpus))))
    return metric


def split(corpus):
    return [said.split() for said, _ in corpus], [[text.split() for text in texts] for _, texts in corpus]


# --- against coco-caption -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_coco_s(corpus, order):
    scores, each = theirs(CocoBleu(), corpus, verbose=0)
    metric = ours(Bleu(order), corpus)
    assert metric.compute().value == pytest.approx(scores[order - 1], abs=1e-9)
    assert metric.kept()[0].tolist() == pytest.approx(each[order - 1], abs=1e-9)


def test_rouge_is_coco_s(corpus):
    score, each = theirs(CocoRouge(), corpus)
    metric = ours(RougeL(), corpus)
    assert metric.compute().value == pytest.approx(score, abs=1e-9)
    assert metric.kept()[0].tolist() == pytest.approx(each.tolist(), abs=1e-9)


def test_cider_is_coco_s(corpus):
    score, each = theirs(CocoCider(), corpus)
    metric = ours(CiderD(), corpus)
    assert metric.compute().value == pytest.approx(score, abs=1e-9)
    assert metric.kept()[0].tolist() == pytest.approx(each.tolist(), abs=1e-9)


def test_all_at_once_is_coco_s(corpus):
    figures = text_metrics(
        {str(i): said for i, (said, _) in enumerate(corpus)}, {str(i): texts for i, (_, texts) in enumerate(corpus)}
    )
    expected = dict(
        zip(["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"], theirs(CocoBleu(), corpus, verbose=0)[0], strict=True)
    )
    expected |= {"ROUGE-L": theirs(CocoRouge(), corpus)[0], "CIDEr-D": theirs(CocoCider(), corpus)[0]}
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


# --- by hand --------------------------------------------------------------------------------------------------------


def test_bleu_by_hand():
    """Papineni's example: "the" seven times, of which two count; the closest reference has 7 words too."""
    counts = bleu_counts(["the", "the", "the", "the", "the", "the", "the"], [r.split() for r in BY_HAND[2][1]])
    assert counts.tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 7]
    assert bleu(counts, 1).item() == pytest.approx(2 / 7)
    short = bleu_counts(["a", "dog"], [["a", "dog", "runs", "on"]])
    assert bleu(short, 1).item() == pytest.approx(math.exp(1 - 4 / 2))  # brevity alone
    assert bleu(short, 2).item() == pytest.approx(math.exp(1 - 4 / 2))


def test_of_two_references_as_close_the_shorter_one_counts():
    assert bleu_counts(list("abc"), [list("abcd"), list("ab")])[-1] == 2


def test_bleu_of_a_corpus_is_no_mean():
    metric = ours(Bleu(1), [("a b c d", ["a b c d"]), ("x", ["y"])])
    assert metric.compute().value == pytest.approx(4 / 5)
    assert metric.kept()[0].tolist() == pytest.approx([1, 0])


def test_rouge_by_hand():
    """The best precision is of one reference (2 of 2 words), the best recall of the other (1 of 1)."""
    said, references = ["a", "b"], [["a", "x", "b", "y"], ["b"]]
    assert rouge_l(said, references) == pytest.approx(1)
    p, r = 2 / 2, 2 / 4
    assert rouge_l(said, references[:1]) == pytest.approx((1 + 1.44) * p * r / (r + 1.44 * p))
    assert rouge_l(["b", "a"], [["a", "b"]]) == pytest.approx(0.5)  # only one of them is in order


def test_cider_by_hand():
    """Two pictures, one word each: idf is log 2, unigrams agree wholly, and there are no longer n-grams."""
    said, references = [["dog"], ["dog"]], [[["dog"]], [["cat"]]]
    assert cider_d(said, references).tolist() == pytest.approx([10 / 4, 0])
    # A caption that repeats is longer by two bigrams; the weights are clipped at the reference's.
    value = cider_d([["dog"] * 3, ["cat"]], references)[0].item()
    assert value == pytest.approx(10 / 4 * (1 / 3) * math.exp(-4 / 72))


def test_right_captions_get_the_highest_value():
    corpus = [(f"{a} stands on the {b} today", [f"{a} stands on the {b} today"]) for a, b in ("xy", "zu", "vw")]
    for metric, most in ((Bleu(), 1), (RougeL(), 1), (CiderD(), 10)):
        assert ours(metric, corpus).kept()[0].tolist() == pytest.approx([most] * 3, rel=1e-8)


def test_frequencies_of_a_corpus():
    said, references = split(CORPORA["random"])
    frequencies = DocumentFrequencies.of(references)
    whole = cider_d(said, references)
    assert cider_d(said[:3], references[:3], frequencies).tolist() == pytest.approx(whole[:3].tolist())
    assert cider_d(said[:3], references[:3]).tolist() != pytest.approx(whole[:3].tolist())
    metric = ours(CiderD(frequencies), CORPORA["random"][:3])
    assert metric.compute().value == pytest.approx(whole[:3].mean().item())
    with pytest.raises(UserError, match="references of a picture at least"):
        DocumentFrequencies.of([])


def test_cider_of_one_picture_is_0_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert cider_d([["dog"]], [[["dog"]]]).tolist() == [0]
    assert "of one picture" in caplog.text


# --- words ----------------------------------------------------------------------------------------------------------

# What Stanford's PTBTokenizer 3.4.1 with coco-caption's settings gave, run once.
STANFORD = [
    ("A cat with green eyes looks at the camera.", "a cat with green eyes looks at the camera"),
    (
        "A man riding a wave on top of a surfboard. There is a dog.",
        "a man riding a wave on top of a surfboard there is a dog",
    ),
    (
        "Two dogs, one black and one white, play with a frisbee!",
        "two dogs one black and one white play with a frisbee",
    ),
    ("A man's hat (red) isn't on the table.", "a man 's hat -lrb- red -rrb- is n't on the table"),
    ('The sign says "STOP" in white letters.', "the sign says stop in white letters"),
    ("The sign says 'STOP' in white letters", "the sign says stop in white letters"),
    ("A black/white cat; a close-up -- of its face...", "a black/white cat a close-up of its face"),
    ("Café naïve über-straße 日本 “quoted” it’s", "café naïve über-straße 日本 quoted it 's"),
    ("I can't, won't, cannot, gonna eat it.", "i ca n't wo n't can not gon na eat it"),
    ("a dog .", "a dog"),
    ("A T-shirt and a 10-year-old boy – smiling — happily", "a t-shirt and a 10-year-old boy smiling happily"),
    ("A plate with [broccoli] and {carrots}", "a plate with -lsb- broccoli -rsb- and -lcb- carrots -rcb-"),
    ("Table.A chair.with no space", "table.a chair.with no space"),
    ("50% off; 2 + 2 = 4", "50 % off 2 + 2 = 4"),
    ("A man @ a bus stop*", "a man @ a bus stop *"),
    ("A picture of a dog's and cats' toys.", "a picture of a dog 's and cats toys"),
    ("people at 2:00 o'clock in a mid-air jump", "people at 2:00 o'clock in a mid-air jump"),
    ("A man with a hot dog, ketchup, mustard,and relish", "a man with a hot dog ketchup mustard and relish"),
    ("A Mr. Coffee machine and a 7-Eleven at night. ", "a mr. coffee machine and a 7-eleven at night"),
    (" two\nlines\tand  spaces ", "two lines and spaces"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "words"), STANFORD)
def test_words_are_stanford_s(text, words):
    assert words_of(text) == words.split()


def test_case_and_punctuation_count_for_nothing():
    said = {"1": "A man's dog. Two cats!", "2": "nothing"}
    same = {"1": "a MAN's dog , two cats", "2": "Nothing."}
    references = {"1": ["a man's dog and two cats", "Dogs."], "2": ["a red bus"]}
    assert text_metrics(said, references) == text_metrics(same, references)


# --- edges ----------------------------------------------------------------------------------------------------------


def test_captions_and_references_without_words_get_nothing():
    for said, references in (("", ["a dog"]), ("...", ["a dog"]), ("a dog", ["."]), ("", [""])):
        corpus = [(said, references), ("a cat", ["a cat"])]
        for metric in (Bleu(1), RougeL(), CiderD()):
            assert ours(metric, corpus).kept()[0][0].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", [Bleu(), RougeL(), CiderD()])
def test_mistakes_are_named(metric):
    with pytest.raises(UserError, match="none for 'a dog'"):
        metric.update(["a dog"], [[]], [0])
    with pytest.raises(UserError, match=r"write \['a dog'\]"):
        metric.update(["a dog"], ["a dog"], [0])
    with pytest.raises(UserError, match="2 captions, references of 1 and 2 numbers"):
        metric.update(["a dog", "a cat"], [["a dog"]], [0, 1])


def test_mistakes_of_corpora_are_named():
    with pytest.raises(UserError, match="a caption at least"):
        text_metrics({}, {})
    with pytest.raises(UserError, match="1 have no reference, the first is '2'"):
        text_metrics({"1": "a dog", "2": "a cat"}, {"1": ["a dog"]})
    with pytest.raises(UserError, match="1 have references and no caption, the first is '2'"):
        text_metrics({"1": "a dog"}, {"1": ["a dog"], "2": ["a cat"]})
    with pytest.raises(UserError, match="none for '1'"):
        text_metrics({"1": "a dog"}, {"1": []})


@pytest.mark.parametrize("order", [0, 5])
def test_there_are_four_orders(order):
    with pytest.raises(UserError, match=f"from 1 to 4, got {order}"):
        Bleu(order)


def test_of_nothing_there_is_no_figure():
    for metric in (Bleu(), RougeL(), CiderD()):
        metric.update([], [], [])
        figure = metric.compute()
        assert math.isnan(figure.value)
        assert (figure.n, len(metric.kept()[0])) == (0, 0)


def test_ids_need_not_be_in_the_same_order():
    said = {"1": "a dog", "2": "a cat sleeps"}
    references = {"2": ["the cat sleeps"], "1": ["a dog", "dogs"]}
    assert text_metrics(said, references) == text_metrics(said, dict(reversed(references.items())))


# --- streaming ------------------------------------------------------------------------------------------------------

METRICS = [Bleu, RougeL, CiderD]


@pytest.mark.parametrize("kind", METRICS)
def test_batches_change_nothing(kind):
    corpus = CORPORA["random"]
    whole, parts = ours(kind(), corpus), kind()
    for start in range(0, len(corpus), 7):
        said, references = zip(*corpus[start : start + 7], strict=True)
        parts.update(list(said), list(references), list(range(start, start + len(said))))
    assert parts.compute() == whole.compute()
    torch.testing.assert_close(parts.kept(), whole.kept(), rtol=0, atol=0)
    parts.reset()
    assert ours(parts, corpus).compute() == whole.compute()


@pytest.mark.parametrize("kind", METRICS)
def test_two_processes_are_one_corpus(kind):
    """What another process holds arrives by the gathering; a process may hold nothing."""
    corpus = CORPORA["random"]
    other, idle = ours(kind(), corpus[25:]), kind()
    theirs = [torch.cat(other.facts), torch.cat(other.units), torch.cat(idle.facts), torch.cat(idle.units)]
    expected = kind()
    for part, first in ((corpus[:25], 0), (corpus[25:], 0)):
        said, references = zip(*part, strict=True)
        expected.update(list(said), list(references), list(range(first, first + len(part))))

    def gather(tensor, group=None):
        gather.calls += 1
        others = theirs[(gather.calls - 1) % 2 :: 2]
        assert all(tensor.dtype == part.dtype and tensor.shape[1:] == part.shape[1:] for part in others)
        return [tensor, *others]

    gather.calls = 0
    mine = ours(kind(dist_sync_fn=gather, distributed_available_fn=lambda: True), corpus[:25])
    assert mine.compute() == expected.compute()
    torch.testing.assert_close(mine.kept(), expected.kept(), rtol=0, atol=0)
    assert len(torch.cat(mine.units)) == 25  # its own are kept apart


PROCESS = """
import sys
import torch.distributed as dist
from captioning.metrics import Bleu, CiderD, RougeL
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
said, references = ["a dog runs", "a café", "two cats"], [["the dog runs"], ["a café 日本", "tea"], ["two cats sleep"]]
for kind in (Bleu, CiderD, RougeL):
    mine, whole = kind(), kind(distributed_available_fn=lambda: False)
    whole.update(said, references, [0, 1, 2])
    if rank == 0:
        mine.update(said, references, [0, 1, 2])
    assert mine.compute() == whole.compute()
    assert mine.kept()[0].equal(whole.kept()[0])
dist.barrier()
"""


@pytest.mark.slow
def test_two_real_processes_one_of_them_idle(tmp_path):
    command = [sys.executable, "-c", PROCESS]
    started = [subprocess.Popen([*command, str(rank), str(tmp_path / "meet")]) for rank in range(2)]
    assert [process.wait(240) for process in started] == [0, 0]


def test_collections_and_forward():
    corpus = CORPORA["random"][:6]
    said, references = map(list, zip(*corpus, strict=True))
    together = MetricCollection({f"BLEU-{order}": Bleu(order) for order in (1, 4)} | {"ROUGE-L": RougeL()})
    together.update(said[:3], references[:3], [0, 1, 2])
    together.update(said[3:], references[3:], [3, 4, 5])
    figures = together.compute()
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {"BLEU-1": bleu_of(corpus, 1), "BLEU-4": bleu_of(corpus, 4), "ROUGE-L": theirs(CocoRouge(), corpus)[0]}
    )
    metric = RougeL()
    assert metric(said[:3], references[:3], [0, 1, 2]).n == 3
    assert metric(said[3:], references[3:], [3, 4, 5]).n == 3
    assert metric.compute().value == pytest.approx(theirs(CocoRouge(), corpus)[0])


def bleu_of(corpus, order):
    return theirs(CocoBleu(), corpus, verbose=0)[0][order - 1]


def test_bleu_s_interval_resamples_pictures():
    corpus = CORPORA["random"]
    figure = ours(Bleu(2), corpus).compute()
    assert figure.low < figure.value < figure.high
    twice, pairs = Bleu(2), corpus + corpus
    said, references = map(list, zip(*pairs, strict=True))
    twice.update(said, references, [*range(len(corpus))] * 2)  # each picture twice: nothing new is known
    again = twice.compute()
    assert (again.value, again.low, again.high) == pytest.approx((figure.value, figure.low, figure.high), rel=1e-6)
    apart = ours(Bleu(2), pairs).compute()
    assert apart.high - apart.low < 0.85 * (figure.high - figure.low)
    counts = torch.stack([bleu_counts(said.split(), [text.split() for text in texts]) for said, texts in corpus])
    chance, n = random.Random(1), len(corpus)
    means = torch.stack([bleu(counts[chance.choices(range(n), k=n)].sum(0), 2) for _ in range(500)])
    assert figure.low == pytest.approx(means.quantile(0.025).item(), abs=0.03)
    assert figure.high == pytest.approx(means.quantile(0.975).item(), abs=0.03)


# --- METEOR ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_wordnet(monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    wordnet.cache_clear()
    yield
    wordnet.cache_clear()


@pytest.fixture
def tiny_wordnet(monkeypatch, tmp_path):
    """A WordNet of two synsets, {cat, mog} and {car, automobile}, in the files' format."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in WordNetFiles:
        (folder / name).touch()
    (folder / "lexnames").write_text("".join(f"{i:02d}\tname.{i}\t1\n" for i in range(6)))
    pet, vehicle = "00000000 05 n 02 cat 0 mog 0 000 | a pet  \n", "00000043 05 n 02 car 0 automobile 0 000 | runs  \n"
    assert len(pet) == 43  # a line's number is where it stands
    (folder / "data.noun").write_text(pet + vehicle)
    rows = {"automobile": 43, "car": 43, "cat": 0, "mog": 0}
    (folder / "index.noun").write_text("".join(f"{word} n 1 0 1 0 {at:08d}  \n" for word, at in rows.items()))
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    wordnet.cache_clear()
    yield
    for file in wordnet()._data_file_map.values():
        file.close()
    wordnet.cache_clear()


WordNetFiles = [f"{kind}.{part}" for kind in ("index", "data") for part in ("adj", "adv", "noun", "verb")]
WordNetFiles += [f"{part}.exc" for part in ("adj", "adv", "noun", "verb")] + ["cntlist.rev", "index.sense", "lexnames"]


@pytest.mark.usefixtures("no_wordnet")
def test_without_wordnet_there_is_no_meteor(caplog):
    with pytest.raises(UserError, match=r"python -m nltk\.downloader wordnet"):
        Meteor()
    with pytest.raises(UserError, match=r"python -m nltk\.downloader wordnet"):
        meteor(["a"], [["a"]])
    with caplog.at_level(logging.WARNING):
        assert "METEOR" not in text_metrics({"1": "a dog"}, {"1": ["a dog"]})
    assert "METEOR is left out" in caplog.text
    assert "python -m nltk.downloader wordnet" in caplog.text


@pytest.mark.usefixtures("tiny_wordnet")
def test_meteor_by_hand():
    said = ["the", "cat", "sat", "on", "a", "mat"]
    assert meteor(said, [said]) == pytest.approx(1 - 0.5 / 6**3)
    assert meteor(["the", "mog", "sat", "on", "a", "mat"], [said]) == pytest.approx(1 - 0.5 / 6**3)  # a synonym
    assert meteor(["the", "dog", "sat", "on", "a", "mat"], [said]) < 0.9
    assert meteor(["cats"], [["cat"]]) == pytest.approx(0.5)  # the same stem; 1 chunk of 1 match
    assert meteor([], [said]) == 0
    # nltk looks synonyms up by their stems, so those that are no stems are not found: "automobil".
    assert meteor(["car"], [["automobile"]]) == 0
    # 2 of 4 words, in 2 chunks: P = 1/2, R = 2/3.
    p, r = 2 / 4, 2 / 3
    mean = p * r / (0.9 * p + 0.1 * r)
    assert meteor(list("axbz"), [list("ayb")]) == pytest.approx((1 - 0.5 * (2 / 2) ** 3) * mean)
    assert meteor(list("axbz"), [["q"], list("ayb")]) == pytest.approx(0.5 * mean)  # the best reference


@pytest.mark.usefixtures("tiny_wordnet")
def test_meteor_streams_and_stands_among_the_others():
    corpus = [("a mog", ["a cat"]), ("a dog", ["two birds"])]
    metric = ours(Meteor(), corpus)
    assert metric.kept()[0].tolist() == pytest.approx([1 - 0.5 / 8, 0])
    figures = text_metrics({"1": "a mog", "2": "a dog"}, {"1": ["a cat"], "2": ["two birds"]})
    assert figures["METEOR"] == metric.compute().value == pytest.approx((1 - 0.5 / 8) / 2)
