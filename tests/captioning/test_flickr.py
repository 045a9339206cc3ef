import pytest
import torch

from captioning.flickr import Flickr30kEntities, FlickrTokens, read_sentence
from mmcam.errors import UserError
from mmcam.text import tokenise
from tests.annotated import BOMB, copied, half, is_refused, replaced

# Of the coffee picture: the boxes in the file's order.
CUP, COFFEE, SAUCER, SPOON, TABLE = range(5)


@pytest.fixture
def folder(tmp_path):
    return copied(tmp_path / "flickr", "flickr30k_entities")


@pytest.fixture
def cat(folder):
    return Flickr30kEntities(str(folder), "train")


@pytest.fixture
def coffee(folder):
    return Flickr30kEntities(str(folder), "test")


def test_splits(folder, cat, coffee):
    assert (cat.ids, coffee.ids) == (["1000000101"], ["1000000102"])
    assert Flickr30kEntities(str(folder), "val").ids == []
    assert coffee.sample(0).image.size == (240, 160)


def test_sentences_lose_their_brackets_and_unrelated_ones_are_left_out(cat, coffee):
    assert coffee.given(0)[0] == "A cup of coffee on a wooden table ."
    assert len(coffee.given(0)) == 5
    assert cat.given(0) == (
        "A striped cat with green eyes looks at the camera .",
        "A brown and orange cat sits in a room .",
        "A cat with a pink nose and two eyes .",
        "Close up of a striped cat .",
    )


def test_boxes_count_from_one_and_include_their_last_pixel(cat):
    things = cat.things(0)
    assert things.boxes.tolist() == [[0, 0, 211, 160], [71, 46, 111, 80], [157, 57, 184, 89], [124, 120, 156, 144]]
    assert things.names == ("animals", "bodyparts", "bodyparts", "bodyparts")
    assert [int(mask.sum()) for mask in things.masks] == [211 * 160, 40 * 34, 27 * 32, 32 * 24]


def test_the_first_mention_says_the_type(coffee):
    """Chain 6 is "other" first, and later "other" and "vehicles"."""
    assert set(coffee.things(0).names) == {"other"}


def test_all_words_of_a_phrase_mean_all_boxes_of_its_chain(cat):
    eyes = (1, 2)
    words = cat.given(0)[0].split()
    assert dict(zip(words, cat.about(0, words), strict=True)) == {
        "A": (0,), "striped": (0,), "cat": (0,), "with": None, "green": eyes, "eyes": eyes,
        "looks": None, "at": None, "the": None, "camera": None, ".": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "sentence", ["The cat stares past something soft .", "A brown and orange cat sits in a room ."]
)
def test_scenes_and_things_without_a_box_mean_nothing(cat, sentence):
    about = dict(zip(sentence.split(), cat.about(0, sentence.split()), strict=True))
    assert about["cat"] == (0,)
    assert {word for word, things in about.items() if things is None} >= {"soft", "past"} or about["room"] is None


@pytest.mark.parametrize(
    "cut",
    [
        lambda text: text.split(),
        lambda text: tokenise(text),
        lambda text: text.lower().replace(" .", "").split(),
        lambda text: [word.upper() for word in text.split()],
    ],
)
def test_a_sentence_is_known_again_however_it_is_cut(coffee, cut):
    words = cut(coffee.given(0)[1])
    about = dict(zip([word.lower() for word in words], coffee.about(0, words), strict=True))
    assert about["red"] == about["cup"] == (CUP,)
    assert about["saucer"] == (SAUCER,)
    assert about["metal"] == about["spoon"] == (SPOON,)
    assert about["and"] is None


def test_words_that_are_cut_elsewhere_take_the_place_of_their_first_letter(folder):
    file = folder / "Sentences/1000000102.txt"
    file.write_text("[/EN#6/other A man 's cup] isn't [/EN#10/other spoon-like] .\n")
    about = Flickr30kEntities(str(folder), "test").about(0, ["a", "man's", "cup", "is", "n't", "spoon", "-", "like"])
    assert about == [(CUP,), (CUP,), (CUP,), None, None, (SPOON,), None, (SPOON,)]


def test_a_model_s_own_words_mean_what_phrases_end_with(coffee):
    assert coffee.about(0, ["two", "cups", "and", "a", "red", "table", "with", "dogs"]) == [
        None, (CUP,), None, None, None, (TABLE,), None, None,
    ]  # fmt: skip
    assert coffee.about(0, []) == []


def test_a_missing_size_is_that_of_the_picture(folder, coffee):
    expected = coffee.things(0)
    file = folder / "Annotations/1000000102.xml"
    text = file.read_text()
    file.write_text(text[: text.index("<size>")] + text[text.index("</size>") + 7 :])
    found = coffee.things(0)
    assert torch.equal(found.masks, expected.masks)
    assert found.masks.shape[1:] == (160, 240)


def test_opening_reads_only_the_list(folder):
    for name in ("Sentences", "Annotations", "flickr30k-images"):
        for file in (folder / name).iterdir():
            file.unlink()
    source = Flickr30kEntities(str(folder), "test")
    with pytest.raises(UserError, match=r"1000000102\.txt: there is no such file"):
        source.given(0)


def test_judged_by_the_related_sentences(cat):
    judged = cat.judge({0: ["the", "cat", "stares", "past", "something", "soft"]})
    assert judged["rouge_l"][0] < 0.5
    assert cat.judge({0: ["close", "up", "of", "a", "striped", "cat"]})["rouge_l"].tolist() == pytest.approx([1])


def test_a_sentence():
    sentence = read_sentence("Close up of [/EN#1/people/other two men] .", "")
    assert sentence.words == ("Close", "up", "of", "two", "men", ".")
    (phrase,) = sentence.phrases
    assert (phrase.chain, phrase.types, phrase.words) == ("1", ("people", "other"), (3, 5))
    assert read_sentence("no phrase ]", "").words == ("no", "phrase", "]")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[/EN#1/people two men", "expected the end of '/?.*EN#1/people', got the end of the line"),
        ("[/EN#1/people two [/EN#2/other men] a]", "in it"),
        ("[/EN#1 two men]", "expected ./EN#<chain>/<type> words"),
        ("[/EN#x/people two men]", "expected ./EN#<chain>/<type> words"),
        ("[/EN#1/ two men]", "expected ./EN#<chain>/<type> words"),
        ("[/EN#1/people ]", "of 0 words"),
    ],
)
def test_broken_sentences(line, reason):
    with pytest.raises(UserError, match=f"a.txt: line 2: .*{reason}"):
        read_sentence(line, "a.txt: line 2")


XML, TEXT = "Annotations/1000000102.xml", "Sentences/1000000102.txt"


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (XML, half, "expected whole XML, got a file that is cut short"),
        (XML, lambda text: BOMB, "line 2: expected no document type"),
        (XML, replaced("1000000102.jpg", "1000000103.jpg"), "the file is about another picture"),
        (XML, replaced("<xmin>83</xmin>", ""), "object 2: expected xmin as a number, got none"),
        (XML, replaced("<name>7</name>", ""), "object 2: expected a name"),
        (TEXT, replaced("cup]", "cup"), "line 1: expected the end of"),
        (TEXT, lambda text: "", "expected five sentences"),
        ("test.txt", lambda text: "../../secret", "line 1: expected the number of a picture"),
        ("test.txt", lambda text: "1\n1\n", "line 2: expected the number of a picture, each once, got '1'"),
        (
            "UNRELATED_CAPTIONS",
            lambda text: "1000000101 four",
            "line 1: expected a picture and the number of a sentence",
        ),
    ],
)
def test_broken_files(folder, file, edit, message):
    def use():
        source = Flickr30kEntities(str(folder), "test")
        return source.given(0), source.things(0), source.about(0, ["cup"])

    is_refused(folder, file, edit, message, use)


@pytest.mark.parametrize("split", ["../test", "none"])
def test_no_such_split(folder, split):
    with pytest.raises(UserError, match=r"which leads elsewhere|none\.txt: there is no such file"):
        Flickr30kEntities(str(folder), split)


TOKENS = "a.jpg#0\tA dog .\na.jpg#1\tOne  dog .\nb.jpg#0\tTwo cats .\n"


@pytest.fixture
def tokens(tmp_path):
    (tmp_path / "Flickr8k.token.txt").write_text(TOKENS)
    (tmp_path / "split.txt").write_text("b.jpg\n")
    return tmp_path


def test_lists_of_captions(tokens):
    source = FlickrTokens("pictures", str(tokens / "Flickr8k.token.txt"))
    assert source.ids == ["a", "b"]
    assert source.given(0) == ("A dog .", "One dog .")
    assert FlickrTokens("pictures", str(tokens / "Flickr8k.token.txt"), str(tokens / "split.txt")).ids == ["b"]
    with pytest.raises(UserError, match=r"pictures/a\.jpg"):
        source.sample(0)


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("Flickr8k.token.txt", replaced("\tOne", " One"), "line 2: expected <picture>#<n>, a tab and a caption"),
        ("Flickr8k.token.txt", replaced("#1", "#0"), "line 2: expected each caption once, got a.jpg#0 again"),
        ("Flickr8k.token.txt", replaced("a.jpg#0", "a.jpg"), "line 1: expected <picture>#<n>"),
        ("Flickr8k.token.txt", replaced("a.jpg#0", "../a.jpg#0"), "which leads elsewhere"),
        ("split.txt", lambda text: "b.jpg\nb.jpg", "line 2: expected each picture once, got 'b.jpg' again"),
        ("split.txt", lambda text: "b.jpg\nc.jpg", "line 2: 'c.jpg' has no caption in"),
    ],
)
def test_broken_lists(tokens, file, edit, message):
    split = str(tokens / "split.txt") if file == "split.txt" else ""
    is_refused(tokens, file, edit, message, lambda: FlickrTokens("p", str(tokens / "Flickr8k.token.txt"), split))
