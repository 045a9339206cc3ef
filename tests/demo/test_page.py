"""What a click does, without a browser."""

import re

import gradio as gr
import pytest

from mmcam.demo.clicks import Clicks
from mmcam.demo.looks import look
from mmcam.demo.samples import samples

LOOKS = ("viridis", 0.5, "own")


@pytest.fixture
def tab(served):
    return Clicks(served["captioning"], "captioning", 1000, 1000)


@pytest.fixture
def found(served):
    return look(served["captioning"], samples()[2].picture)


@pytest.mark.parametrize(
    ("shown", "chosen", "several", "then"),
    [
        ([0], [0, 2], False, [2]),  # a click on another word shows that one
        ([0], [], False, [0]),  # on the same: it stays
        ([0, 2], [2], True, [2]),
        ([2], [], True, [2]),
        ([0, 1, 2, 3, 4], [0, 1, 3, 4], False, [2]),  # the whole sentence, then a word of it
        ([0], [0], False, [0]),
    ],
)
def test_a_click_on_a_word(tab, found, shown, chosen, several, then):
    words, figure, now, *cleared, joined = tab.choose(found, chosen, shown, several, *LOOKS)
    assert words == now == then
    assert f"<b>{found.words[then[0]]}</b>" in figure
    assert cleared == ["", ""]  # what is shown of another word
    assert joined == ""


def test_several_words_are_handed_on_and_joined(tab, found):
    """A click is answered at once; a phrase takes a backward pass, and waits its turn."""
    *left, joined = tab.choose(found, [0, 2], [0], True, *LOOKS)
    assert joined == "0 2"
    assert left == [gr.skip()] * 5
    words, figure, now, *cleared = tab.join(found, [0, 2], *LOOKS)
    assert words == now == [0, 2]
    assert f"<b>{found.words[0]} {found.words[2]}</b>" in figure
    assert cleared == ["", ""]
    assert tab.join(found, [1], *LOOKS) == (gr.skip(),) * 5


def test_the_whole_sentence(tab, found):
    words, figure, *_ = tab.sentence(found, *LOOKS)
    assert words == list(range(len(found.words)))
    assert f"<b>{' '.join(found.words)}</b>" in figure


def test_other_colours_of_the_same_map(tab, found):
    viridis, jet = (tab.redraw(found, [1], colours, 0.5, "own") for colours in ("viridis", "jet"))
    assert not set(viridis) & set(jet)
    assert tab.recolour(found, [1], "jet", "own") == (0.5, *jet)
    assert tab.redraw(None, [], *LOOKS) == ("", "")


def test_a_caption_begins_with_its_longest_word_answers_with_the_likeliest(tab, found, served):
    _, words, figure, shown, *_ = tab.show(None, samples()[2].picture, "", "", "grad_cam", "", *LOOKS)
    (first,) = shown
    assert words["value"] == shown
    assert len(found.words[first]) == max(map(len, found.words)) > 1
    assert f"<b>{found.words[first]}</b>" in figure
    asked = Clicks(served["vqa"], "vqa", 1000, 1000)
    assert asked.show(None, samples()[2].picture, samples()[2].questions[0], "", "grad_cam", "", *LOOKS)[3] == [0]


def test_all_words_at_once_are_buttons_that_choose_them(tab, found):
    everything = tab.show(None, samples()[2].picture, "", "", "grad_cam", "", *LOOKS)[-1]
    buttons = re.findall(
        r"onclick=\"document.querySelectorAll\('#captioning-words input'\)\[(\d+)\].*?<span>(.*?)</span>", everything
    )
    assert buttons == [(str(number), word) for number, word in enumerate(found.words)]
    assert tab.show(None, samples()[2].picture, "", "a", "grad_cam", "", *LOOKS)[-1] == ""  # a single word is large


def test_nothing_is_computed_twice(tab, served, monkeypatch):
    """Explain, then another text: the picture is not looked at again; another picture is."""
    task, count = served["captioning"].task, []
    trunk = task.trunk
    monkeypatch.setattr(task, "trunk", lambda batch: count.append(1) or trunk(batch))
    first = tab.show(None, samples()[2].picture, "", "", "grad_cam", "", *LOOKS)[0]
    second = tab.show(first, samples()[2].picture, "", "a zebra", "grad_cam", "", *LOOKS)[0]
    assert second.words == ("a", "zebra")
    assert len(count) == 1
    tab.show(second, samples()[1].picture, "", "", "grad_cam", "", *LOOKS)
    assert len(count) == 2


def test_before_there_is_a_picture(tab):
    assert tab.show(None, None, "", "", None, None, *LOOKS)[0] is None
    for call in (lambda: tab.three(None, [], "jet", 0.5), lambda: tab.choose(None, [0], [], False, *LOOKS)):
        with pytest.raises(gr.Error, match="press Explain first"):
            call()


def test_mistakes_of_our_own_say_nothing_of_the_server(tab, found, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("mmcam.demo.clicks.side_by_side", broken)
    with pytest.raises(gr.Error, match="log says more") as caught:
        tab.three(found, [0], "jet", 0.5)
    assert "secret" not in str(caught.value)
