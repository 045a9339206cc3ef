"""Answers: what one is, the file that keeps them through any accident, and those that a page without a server gives.

The file is SQLite with a write-ahead log, synchronised at every answer: what the page was told is kept is on the disk.
There are two tables, of people (a random code each) and of answers; no names, no addresses, no dates.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from mmcam.errors import UserError
from mmcam.study.plan import Study, is_code, new_code

__all__ = ["ANSWERS", "Answer", "Refused", "Store", "checked", "read_answers"]

ANSWERS = "answers.sqlite"
LONGEST = 3_600_000
"""Milliseconds: who left the page open for longer took an hour."""
LARGEST = 10_000_000
"""Bytes of a file of answers."""
MOST_PEOPLE = 20_000

TABLES = """
CREATE TABLE IF NOT EXISTS study (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS people (code TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    code TEXT NOT NULL REFERENCES people (code),
    trial TEXT NOT NULL,
    value INTEGER NOT NULL CHECK (value BETWEEN -2 AND 2),
    milliseconds INTEGER NOT NULL CHECK (milliseconds BETWEEN 0 AND 3600000),
    PRIMARY KEY (code, trial)
) STRICT;
"""


class Refused(UserError):
    """An answer that is not taken.

    Attributes:
        status: Why, as HTTP has it.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What a person chose.

    Attributes:
        code: Who.
        trial: Name of the trial.
        value: As it was seen: 0 the left option, 1 the right one; of trust -2 (left) … 2 (right).
        milliseconds: From the question to the answer.
    """

    code: str
    trial: str
    value: int
    milliseconds: int = 0


def checked(study: Study, code: object, found: object) -> Answer:
    """Make an answer out of what came from outside.

    Raises:
        Refused: It is none to a question that this person was asked.
    """
    if not isinstance(code, str) or not is_code(code):
        raise Refused("expected a code such as K7QM-4XRP")
    if not isinstance(found, dict) or not {"trial", "value"} <= set(found) <= {"trial", "value", "milliseconds"}:
        raise Refused("expected trial, value and milliseconds")
    trial, value, taken = found["trial"], found["value"], found.get("milliseconds", 0)
    if not isinstance(trial, str) or trial not in study.by_id:
        raise Refused("expected a trial of this study")
    if trial not in study.plan(code):
        raise Refused("expected a trial that this person is asked")
    if not study.is_value(value):
        raise Refused(f"expected a value {'from -2 to 2' if study.kind == 'trust' else 'of 0 or 1'}")
    if type(taken) is not int or taken < 0:
        raise Refused("expected milliseconds, 0 or more")
    return Answer(code, trial, value, min(taken, LONGEST))


class Store:
    """The answers of a study; threads may share it.

    with Store(folder, study) as store: ...
    """

    def __init__(self, folder: Path, study: Study) -> None:
        """Open the file, or make it.

        Raises:
            UserError: It is no file of answers, or those of another study.
        """
        self.study = study
        self.path = folder / ANSWERS
        self._lock = Lock()
        self._file = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute("PRAGMA foreign_keys = ON")
            self._file.executescript(TABLES)
            self._file.execute("INSERT INTO study SELECT ? WHERE NOT EXISTS (SELECT 1 FROM study)", (study.id,))
            owner = self._all("SELECT id FROM study")[0][0]
        except sqlite3.DatabaseError as error:
            self.close()
            raise UserError(f"{self.path}: expected answers, got a file that is none or is broken: {error}") from error
        if owner != study.id:
            self.close()
            raise UserError(f"{self.path}: expected answers to study {study.id}, got those to {owner}; move it away")

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def begin(self) -> str:
        """Let a person begin, in the group that has fewest people.

        Returns:
            Their code.

        Raises:
            Refused: There are too many.
        """
        with self._lock:
            groups = Counter(self.study.group(code) for (code,) in self._all("SELECT code FROM people"))
            if groups.total() >= MOST_PEOPLE:
                raise Refused("this study has enough people; thank you", 403)
            fewest = min(groups[group] for group in range(self.study.groups))
            while True:
                code = new_code()
                if groups[self.study.group(code)] == fewest and not self._known(code):
                    self._file.execute("INSERT INTO people VALUES (?)", (code,))
                    return code

    def answered(self, code: object) -> list[str]:
        """What a person has answered already.

        Raises:
            Refused: Nobody has this code.
        """
        with self._lock:
            self._expect(code)
            return [trial for (trial,) in self._all("SELECT trial FROM answers WHERE code = ? ORDER BY rowid", code)]

    def add(self, code: object, found: object) -> Answer:
        """Keep an answer. The same one again, as after a lost connection, changes nothing.

        Raises:
            Refused: It is none to a question this person is asked, or there is another answer already.
        """
        with self._lock:
            self._expect(code)
            answer = checked(self.study, code, found)
            before = self._all("SELECT value FROM answers WHERE code = ? AND trial = ?", answer.code, answer.trial)
            if before and before[0][0] != answer.value:
                raise Refused("this question has been answered already", 409)
            if not before:
                row = answer.code, answer.trial, answer.value, answer.milliseconds
                self._file.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", row)
            return answer

    def answers(self) -> list[Answer]:
        """All answers, in the order in which they came."""
        with self._lock:
            rows = self._all("SELECT code, trial, value, milliseconds FROM answers ORDER BY rowid")
        return [Answer(*row) for row in rows]

    def _expect(self, code: object) -> None:
        if not is_code(code) or not self._known(str(code)):
            raise Refused("nobody has this code; look whether it is written as it was shown", 404)

    def _known(self, code: str) -> bool:
        return bool(self._all("SELECT 1 FROM people WHERE code = ?", code))

    def _all(self, query: str, *values: object) -> list[Any]:
        return self._file.execute(query, values).fetchall()


def read_answers(study: Study, paths: Sequence[Path]) -> list[Answer]:
    """Read the files that people download from a page without a server.

    Args:
        study: That they answered.
        paths: The files; the same person's may come twice, as when it was sent before and after the end.

    Raises:
        UserError: A file is none of this study, or says something else than another of the same person.
    """
    kept: dict[tuple[str, str], Answer] = {}
    for path in paths:
        try:
            if path.stat().st_size > LARGEST:
                raise UserError(f"{path}: expected answers, got a file of more than {LARGEST // 10**6} MB")
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: expected answers in JSON, got something else ({error})") from error
        if not isinstance(found, dict) or found.get("study") != study.id or not isinstance(found.get("answers"), list):
            raise UserError(f"{path}: expected answers to study {study.id}, got something else; name their own study")
        for one in found["answers"]:
            try:
                answer = checked(study, found.get("code"), one)
            except Refused as error:
                raise UserError(f"{path}: {error}, got {str(one)[:80]}") from error
            before = kept.setdefault((answer.code, answer.trial), answer)
            if before.value != answer.value:
                raise UserError(f"{path}: {answer.code} answered {answer.trial} twice, differently; leave a file out")
    return list(kept.values())
