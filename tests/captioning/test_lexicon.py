import pytest

from captioning.lexicon import Lexicon, _table, singulars

COCO = Lexicon.of(_table()["categories"])


def names(sentence, lexicon=COCO):
    return [None if meaning is None else "/".join(meaning.categories) for meaning in lexicon.read(sentence.split())]


def test_the_table_has_coco_s_eighty_categories_and_no_word_for_two_things_that_it_is_sure_of():
    table = _table()
    assert len(table["categories"]) == 80
    assert set(table["perhaps"]) <= set(table["categories"])
    sure = [word for words in table["categories"].values() for word in words]
    assert len(set(sure)) == len(sure)
    assert not set(sure) & set(table["nothing"])
    assert all(isinstance(word, str) and word == word.lower() for word in sure)


@pytest.mark.parametrize("name", sorted(_table()["categories"]))
def test_every_category_is_known_by_its_own_name(name):
    assert set(names(name)) - {None} != set()
    assert all(name in found for found in names(name) if found)


@pytest.mark.parametrize(
    ("word", "category"),
    [
        ("dogs", "dog"),
        ("men", "person"),
        ("People", "person"),
        ("ladies", "person"),
        ("puppies", "dog"),
        ("buses", "bus"),
        ("busses", "bus"),
        ("sandwiches", "sandwich"),
        ("knives", "knife"),
        ("sheep", "sheep"),
        ("geese", "bird"),
        ("skis", "skis"),
        ("scissors", "scissors"),
        ("couches", "couch"),
        ("benches", "bench"),
        ("cat,", "cat"),
        ("dog's", "dog"),
        ("oranges", "orange"),
        ("vases", "vase"),
        ("horses.", "horse"),
        ("toothbrushes", "toothbrush"),
        ("giraffes", "giraffe"),
        ("glass", "wine glass/cup"),
        ("glasses", "wine glass/cup"),
    ],
)
def test_plurals_case_and_punctuation(word, category):
    assert names(word) == [category]


@pytest.mark.parametrize(
    "word", ["a", "the", "left", "of", "green", "is", "animal", "grass", "bass", "gas", "buss", "."]
)
def test_words_that_name_nothing(word):
    assert names(word) == [None]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("a hot dog", [None, "hot dog", "hot dog"]),
        ("a hot brown dog", [None, None, None, "dog"]),
        ("teddy bears", ["teddy bear"] * 2),
        ("a bear", [None, "teddy bear/bear"]),
        ("a fire hydrant and a fire truck", [None, "fire hydrant", "fire hydrant", None, None, "truck", "truck"]),
        ("the train station", [None, None, None]),
        ("trains at train stations", ["train", None, None, None]),
        ("dining room tables", ["dining table"] * 3),
        ("slice of pizza", ["pizza"] * 3),
        ("stop", [None]),
        ("a stop sign", [None, "stop sign", "stop sign"]),
        ("computer mouse", ["mouse"] * 2),
    ],
)
def test_the_longest_phrase_wins(sentence, expected):
    assert names(sentence) == expected


def test_links_to_things():
    things = ("cat", "dog", "cat")
    assert COCO.about(["two", "cats", "and", "a", "dog"], things) == [None, (0, 2), None, None, (1,)]
    assert COCO.about(["horse"], things) == [()]
    assert COCO.about(["orange"], things) == [None]
    assert COCO.about(["orange"], ("cat", "orange")) == [(1,)]
    assert COCO.about(["oranges"], things) == [()]


def test_a_crowd_leaves_open_what_is_meant():
    assert COCO.about(["people", "dog"], ("cat",), {"person"}) == [None, ()]
    assert COCO.about(["people"], ("person", "cat"), {"person"}) == [(0,)]


def test_a_word_of_two_categories_means_both():
    assert COCO.about(["bike"], ("motorcycle", "bicycle", "dog")) == [(0, 1)]
    assert COCO.about(["bike"], ("motorcycle",)) == [(0,)]
    assert COCO.about(["bike"], ("dog",)) == [()]
    assert COCO.about(["board"], ("surfboard",)) == [(0,)]
    assert COCO.about(["board"], ("dog",)) == [None]


def test_categories_that_coco_does_not_have():
    lexicon = Lexicon.of(["axolotl", "tv", "dog"])
    assert names("two axolotls watch television with a cat", lexicon) == [None, "axolotl", None, "tv", None, None, None]
    assert names("sea horses", Lexicon.of(["sea horse"])) == ["sea horse"] * 2


def test_singulars():
    assert list(singulars("ties", {})) == ["ties", "tie", "ti", "ty"]
    assert list(singulars("glass", {})) == ["glass"]
    assert list(singulars("men", {"men": "man"})) == ["men", "man"]
