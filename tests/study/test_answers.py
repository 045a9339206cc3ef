"""Answers outlive a kill, come once, and are none unless they answer something that was asked."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections import Counter

import pytest

from mmcam.errors import UserError
from mmcam.study import Answer, Store, read_answers
from mmcam.study.answers import Refused
from tests.study.studies import codes, study

WORKER = """
import sys
from pathlib import Path
from mmcam.study import Store, Study
folder = Path(sys.argv[1])
study = Study.load(folder)
store = Store(folder, study)
while True:
    code = store.begin()
    for name in study.plan(code):
        store.add(code, {"trial": name, "value": 1, "milliseconds": 5})
        print(code, name, flush=True)
"""


@pytest.fixture
def made():
    return study(8)


@pytest.fixture
def store(tmp_path, made):
    with Store(tmp_path, made) as store:
        yield store


def test_every_answer_that_was_told_outlives_a_kill(tmp_path, made):
    """A process that answers is killed in the middle; what it said was kept is there, and no more than one other."""
    made.save(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().split() for _ in range(25)]
    process.kill()
    told += [line.split() for line in process.stdout.read().splitlines() if len(line.split()) == 2]
    process.stdout.close()
    process.wait()
    with Store(tmp_path, made) as store:
        kept = [[answer.code, answer.trial] for answer in store.answers()]
        assert kept[: len(told)] == told
        assert len(kept) - len(told) in (0, 1)
        code = told[-1][0]
        left = [name for name in made.plan(code) if name not in store.answered(code)]
        for name in left:  # the person goes on
            store.add(code, {"trial": name, "value": 0})
        assert sorted(store.answered(code)) == sorted(made.plan(code))
    assert sqlite3.connect(tmp_path / "answers.sqlite").execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_people_are_spread_over_the_groups(store, made):
    groups = Counter(made.group(store.begin()) for _ in range(4 * made.groups))
    assert groups == dict.fromkeys(range(made.groups), 4)


def test_an_answer_counts_once(store, made):
    code = store.begin()
    trial = made.plan(code)[0]
    found = {"trial": trial, "value": 1, "milliseconds": 700}
    assert store.add(code, dict(found)) == Answer(code, trial, 1, 700)
    assert store.add(code, found | {"milliseconds": 9}) == Answer(code, trial, 1, 9)  # sent again: nothing changes
    with pytest.raises(Refused, match="answered already") as error:
        store.add(code, found | {"value": 0})
    assert error.value.status == 409
    assert store.answers() == [Answer(code, trial, 1, 700)]


def test_what_answers_nothing_is_refused(store, made):
    code = store.begin()
    mine = made.plan(code)[0]
    foreign = next(trial.id for trial in made.trials if trial.id not in made.plan(code))
    for wrong in (
        {"trial": foreign, "value": 1},
        {"trial": "nothing", "value": 1},
        {"trial": ["x"], "value": 1},
        {"trial": None, "value": 1},
        {"trial": mine},
        {"trial": mine, "value": 2},
        {"trial": mine, "value": -1},
        {"trial": mine, "value": True},
        {"trial": mine, "value": 1.0},
        {"trial": mine, "value": "1"},
        {"trial": mine, "value": 10**30},
        {"trial": mine, "value": 1, "milliseconds": -1},
        {"trial": mine, "value": 1, "milliseconds": 1.5},
        {"trial": mine, "value": 1, "name": "Ada"},
        [mine, 1],
        "x",
        None,
    ):
        with pytest.raises(Refused) as error:
            store.add(code, wrong)
        assert error.value.status == 400
    for nobody in ("2222-2222", "x' OR '1'='1", None, 7, {"a": 1}, [code]):
        with pytest.raises(Refused, match="nobody has this code") as error:
            store.add(nobody, {"trial": mine, "value": 1})
        assert error.value.status == 404
        with pytest.raises(Refused):
            store.answered(nobody)
    assert store.answers() == []
    assert store.add(code, {"trial": mine, "value": 1, "milliseconds": 10**30}).milliseconds == 3_600_000


def test_trust_takes_its_own_values(tmp_path):
    made = study(8, kind="trust")
    with Store(tmp_path, made) as store:
        code = store.begin()
        for name, value in zip(made.plan(code), (-2, -1, 0, 1, 2), strict=False):
            store.add(code, {"trial": name, "value": value})
        with pytest.raises(Refused, match="from -2 to 2"):
            store.add(code, {"trial": made.plan(code)[5], "value": 3})
        assert [answer.value for answer in store.answers()] == [-2, -1, 0, 1, 2]


def test_threads_answer_at_once(store, made):
    def work():
        code = store.begin()
        for name in made.plan(code):
            store.add(code, {"trial": name, "value": 0})

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    people = Counter(answer.code for answer in store.answers())
    assert set(people.values()) == {made.length}
    assert len(people) == 6


def test_the_file_says_nothing_of_people(store, tmp_path):
    store.begin()
    file = sqlite3.connect(tmp_path / "answers.sqlite")
    columns = {
        name: [row[1] for row in file.execute(f"PRAGMA table_info({name})")] for name in ("people", "answers", "study")
    }
    file.close()
    assert columns == {"people": ["code"], "answers": ["code", "trial", "value", "milliseconds"], "study": ["id"]}


def test_answers_belong_to_their_study(tmp_path, made):
    Store(tmp_path, made).close()
    with pytest.raises(UserError, match="answers to study study1, got those to study0"):
        Store(tmp_path, study(8, seed=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "answers.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="none or is broken"):
        Store(tmp_path / "other", made)


def test_downloaded_answers_are_checked(tmp_path, made):
    code, _, other = codes(made, 3)  # of another turn
    answers = [{"trial": name, "value": 1, "milliseconds": 9} for name in made.plan(code)]

    def file(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    whole = {"study": made.id, "code": code, "answers": answers}
    good = file("good.json", whole)
    part = file("part.json", whole | {"answers": answers[:3]})
    assert read_answers(made, [part, good]) == [Answer(code, one["trial"], 1, 9) for one in answers]
    for name, content, message in (
        ("study", whole | {"study": "else"}, "answers to study study0"),
        ("code", whole | {"code": "me"}, "expected a code"),
        ("foreign", whole | {"code": other}, "that this person is asked"),
        ("value", whole | {"answers": [{"trial": answers[0]["trial"], "value": 5}]}, "of 0 or 1"),
        ("list", [], "something else"),
        ("text", "nothing", "in JSON"),
        ("deep", "[" * 100000, "in JSON"),
        ("twice", whole | {"answers": [answers[0], answers[0] | {"value": 0}]}, "twice, differently"),
    ):
        with pytest.raises(UserError, match=message):
            read_answers(made, [file(f"{name}.json", content)])
    with pytest.raises(UserError, match="twice, differently"):
        read_answers(made, [good, file("changed.json", whole | {"answers": [answers[0] | {"value": 0}]})])
