"""The plan of a study: its questions, and which of them a person sees, in what order and with what on which side.

There are `pairs` of two options each, and every pair is asked with the maps of every method: `len(methods)` trials. A
person sees each pair once. People fall into `2 * len(methods)` groups, by their code: a group sees pair i with the maps
of method (i // 2 + turn), and of two groups of the same turn one has all sides exchanged. So in each person's trials
every method comes equally often, and its right option is left as often as right; and over the groups every option of
every trial, whatever class or word it is, is left as often as right.

Group and order follow from the code by a hash that the page computes too, so that a page without a server needs no
other plan.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from mmcam.disk import sync, unfinished
from mmcam.errors import UserError

__all__ = ["CODE", "Kind", "Study", "Trial", "hashed", "is_code", "new_code"]

Kind = Literal["discrimination", "words", "trust"]

VERSION = 1
PLAN = "study.json"
PICTURES = "pictures"
LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Of codes: none that is mistaken for another."""
CODE = re.compile(f"[{LETTERS}]{{4}}-[{LETTERS}]{{4}}")
PICTURE = re.compile(r"[0-9a-f]{12}\.jpg")
LARGEST_PLAN = 100_000_000


@dataclass(frozen=True)
class Trial:
    """One question with its pictures.

    Attributes:
        id: Its name, which tells nothing.
        pair: Number of the pair of options; -1 for a check of attention.
        method: Number of the method whose maps are shown; -1 for a check.
        question: As people read it.
        options: The two options; of trust, none.
        pictures: Files: one picture, or of trust one an option; of a check, none.
        key: Number of the option that is right; of trust, that of the second model. Never sent to people.
        source: Name of the explained picture in the dump.
        word: The explained word, answer or class.
    """

    id: str
    pair: int
    method: int
    question: str
    options: tuple[str, ...]
    pictures: tuple[str, ...]
    key: int
    source: str = ""
    word: str = ""

    @property
    def is_check(self) -> bool:
        """Whether it only tells who does not read."""
        return self.pair < 0


@dataclass(frozen=True)
class Study:
    """A study: all questions and what is right.

    Attributes:
        id: Its name, which differs for any other study.
        kind: What is asked.
        title: Of the page.
        consent: Paragraphs that people agree to before they begin.
        methods: Whose maps are compared.
        trials: All questions, checks among them.
        facts: What it was made from, for the record.
    """

    id: str
    kind: Kind
    title: str
    consent: tuple[str, ...]
    methods: tuple[str, ...]
    trials: tuple[Trial, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> dict[str, Trial]:
        """The trials by their names."""
        return {trial.id: trial for trial in self.trials}

    @property
    def groups(self) -> int:
        """Number of groups of people."""
        return 2 * len(self.methods)

    @property
    def checks(self) -> int:
        """Number of checks of attention."""
        return sum(trial.is_check for trial in self.trials)

    @property
    def length(self) -> int:
        """Number of trials a person answers, checks among them."""
        return (len(self.trials) - self.checks) // len(self.methods) + self.checks

    def group(self, code: str) -> int:
        """The group that a person belongs to."""
        return hashed(f"{self.id} {code}") % self.groups

    def plan(self, code: str) -> list[str]:
        """The names of a person's trials in their order: by chance, with the checks of attention evenly between."""
        turn = self.group(code) // 2
        order = sorted(self.trials, key=lambda trial: (hashed(f"{self.id} {code} {trial.id}"), trial.id))
        asked = [trial.id for trial in order if self._turn(trial) == turn]
        checks = [trial.id for trial in order if trial.is_check]
        ends = [number * len(asked) // (len(checks) + 1) for number in range(1, len(checks) + 1)]
        for end, check in reversed([*zip(ends, checks, strict=True)]):
            asked.insert(end, check)
        return asked

    def sides(self, trial: Trial, code: str) -> tuple[int, int]:
        """Which option a person sees left, and which right. The sides of a check of trust are told in its question."""
        exchanged = self.group(code) % 2 and not (trial.is_check and self.kind == "trust")
        return (1, 0) if exchanged else (0, 1)

    def is_value(self, value: object) -> bool:
        """Whether an answer is one that can be given: 0 left, 1 right; of trust -2 (left) … 2 (right)."""
        low, high = (-2, 2) if self.kind == "trust" else (0, 1)
        return type(value) is int and low <= value <= high

    def open_part(self) -> dict[str, Any]:
        """What people may know: no key, no names of methods, pictures or words, nor which maps are of one method."""
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "turns": len(self.methods),
            "length": self.length,
            "trials": [
                {"turn": self._turn(trial)}
                | {name: getattr(trial, name) for name in ("id", "question", "options", "pictures")}
                for trial in self.trials
            ],
        }

    def _turn(self, trial: Trial) -> int:
        """The turn of the people who are asked it; -1 of a check, which all are."""
        return -1 if trial.is_check else (trial.method - trial.pair // 2) % len(self.methods)

    def save(self, folder: Path) -> None:
        """Write `study.json`, whole or not at all."""
        path = folder / PLAN
        part = unfinished(path)
        content = json.dumps({"version": VERSION, **asdict(self)}, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(content + "\n", encoding="utf-8")
        sync(part)
        part.replace(path)
        sync(folder)

    @classmethod
    def load(cls, folder: Path) -> "Study":
        """Read `study.json`.

        Raises:
            UserError: There is none, or it is none of this version.
        """
        path = folder / PLAN
        if not path.is_file():
            raise UserError(f"{folder}: expected a study, but there is no {PLAN}; make one with mmcam study make")
        if path.stat().st_size > LARGEST_PLAN:
            raise UserError(f"{path}: expected a study, got a file of more than {LARGEST_PLAN // 10**6} MB")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("version") != VERSION:
                raise UserError(f"{path}: expected a study of version {VERSION}; make it again with this mmcam")
            trials = [{**trial, **_tuples(trial, "options", "pictures")} for trial in found.pop("trials")]
            study = cls(**{**found, **_tuples(found, "consent", "methods")}, trials=tuple(Trial(**t) for t in trials))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: expected a study, got something else ({error}); make it again") from error
        if study.kind not in get_args(Kind) or not study.methods or not study._fits():
            raise UserError(f"{path}: expected a study, got one that does not fit together; make it again")
        return study

    def _fits(self) -> bool:
        """Whether trials and methods belong together, and pictures are names of files in the study's own folder."""
        return len(self.by_id) == len(self.trials) and all(
            PICTURE.fullmatch(f"{trial.id}.jpg")
            and all(PICTURE.fullmatch(name) for name in trial.pictures)
            and trial.key in (0, 1)
            and trial.method < len(self.methods)
            and len(trial.options) == (0 if self.kind == "trust" else 2)
            for trial in self.trials
        )


def hashed(text: str) -> int:
    """A number of 32 bits: FNV-1a, finished as MurmurHash3 is; `study.js` has the same."""
    number = 0x811C9DC5
    for byte in text.encode():
        number = ((number ^ byte) * 0x01000193) & 0xFFFFFFFF
    number = ((number ^ number >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ number >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ number >> 16


def new_code() -> str:
    """A code for a person, that nobody can guess."""
    letters = [secrets.choice(LETTERS) for _ in range(8)]
    return f"{''.join(letters[:4])}-{''.join(letters[4:])}"


def is_code(code: object) -> bool:
    """Whether it is of a code's form."""
    return isinstance(code, str) and CODE.fullmatch(code) is not None


def _tuples(found: Mapping[str, Sequence[str]], *names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(found[name]) for name in names}
