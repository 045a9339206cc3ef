"""Every answer is true of the picture, and the question alone does not give it away."""

import re
from collections import Counter, defaultdict

import pytest

from mmcam.scenes.kinds import BY_NAME, GROUPS, NAMES
from mmcam.scenes.questions import ANSWERS, questions
from mmcam.scenes.write import scenes
from tests.scenes.seen import PLURALS, stands


@pytest.mark.parametrize("count", [6, 12])
def test_every_answer_is_true_of_the_picture_and_says_which_things_it_is_about(worlds, count):
    forms = Counter()
    for scene, seen in worlds:
        asked = questions(scene, count)
        assert len({question.text for question in asked}) == len(asked) <= count
        for question in asked:
            answer, about = check(question, seen)
            assert question.answer == answer, question
            assert question.answer in ANSWERS
            assert question.about == tuple(about), question
            forms[question.form] += 1
    assert set(forms) == {"what", "exists", "count", "group", "where", "relation"}


def check(question, seen):
    """The answer to a question and the things that it is about, from what one sees."""
    text = question.text
    every = range(len(seen))

    def of(kind):
        return [i for i in every if seen[i].kind == kind]

    if match := re.fullmatch(r"what (kind of thing )?is (left|right|above|below)(?: of)? the (\w+) \?", text):
        kind, way, anchor = match.groups()
        assert question.form == ("group" if kind else "what")
        (base,) = of(anchor)
        there = [i for i in every if i != base and stands(seen[i], way, seen[base], clearly=True)]
        perhaps = [i for i in every if i != base and stands(seen[i], way, seen[base], clearly=False)]
        assert len(there) == 1
        assert perhaps == there
        name = seen[there[0]].kind
        return (BY_NAME[name].group if kind else name), there
    if match := re.fullmatch(r"is there (an?) (\w+) \?", text):
        assert question.form == "exists"
        assert (match[1] == "an") == (match[2][0] in "aeiou")
        return ("yes" if of(match[2]) else "no"), of(match[2])
    if match := re.fullmatch(r"how many ([\w ]+) are there \?", text):
        assert question.form == "count"
        groups = {"animals": "animal", "pieces of food": "food", "vehicles": "vehicle"}
        if match[1] == "things":
            found = list(every)
        elif match[1] in groups:
            found = [i for i in every if BY_NAME[seen[i].kind].group == groups[match[1]]]
        else:
            found = of(PLURALS[match[1]])
        return str(len(found)), found
    if match := re.fullmatch(r"where is the (\w+) \?", text):
        assert question.form == "where"
        (thing,) = of(match[1])
        x, y = seen[thing].x - 48, seen[thing].y - 48
        assert max(abs(x), abs(y)) > 8
        assert max(abs(x), abs(y)) > 1.25 * min(abs(x), abs(y))
        return (("left" if x < 0 else "right") if abs(x) > abs(y) else ("top" if y < 0 else "bottom")), [thing]
    match = re.fullmatch(r"is the (\w+) (left|right|above|below)(?: of)? the (\w+) \?", text)
    assert match, text
    assert question.form == "relation"
    (a,), (b,) = of(match[1]), of(match[3])
    yes = stands(seen[a], match[2], seen[b], clearly=True)
    assert yes or not stands(seen[a], match[2], seen[b], clearly=False)
    return ("yes" if yes else "no"), [a, b]


@pytest.fixture(scope="module")
def asked():
    return {split: [q for scene in scenes(0, split, 700) for q in questions(scene, 6)] for split in ("train", "test")}


def test_yes_and_no_are_balanced(asked):
    for form in ("exists", "relation"):
        answers = Counter(q.answer for q in asked["train"] if q.form == form)
        assert set(answers) == {"yes", "no"}
        assert 0.42 < answers["yes"] / answers.total() < 0.58


def test_all_answers_occur(asked):
    assert {q.answer for q in asked["train"]} == set(ANSWERS)
    assert len(ANSWERS) == len(set(ANSWERS)) == 67
    assert set(ANSWERS) >= {*NAMES, *GROUPS}


def test_the_question_alone_does_not_give_the_answer(asked):
    by_text, by_form = defaultdict(Counter), defaultdict(Counter)
    for q in asked["train"]:
        by_text[q.text][q.answer] += 1
        by_form[q.form][q.answer] += 1
    right, all_of = Counter(), Counter()
    for q in asked["test"]:
        guess = (by_text[q.text] or by_form[q.form]).most_common(1)[0][0]
        right[q.form] += guess == q.answer
        all_of[q.form] += 1
    assert right.total() / all_of.total() < 0.43
    bounds = {"exists": 0.6, "relation": 0.6, "count": 0.48, "group": 0.3, "where": 0.35, "what": 0.1}
    for form, bound in bounds.items():
        assert right[form] / all_of[form] < bound, form


def test_questions_about_one_or_several_forms_are_not_rare(asked):
    forms = Counter(q.form for q in asked["train"])
    assert min(forms.values()) / forms.total() > 0.04
