"""Twenty users at once on a running `mmcam demo`: is every answer their own, how long does it take, is memory flat?

    python -m benchmarks.bench_demo --users 20 --seconds 60 --kind captioning --rounds 6 --out runs/bench/demo

The server is a process of its own, started as a user would. Every user has a session, uploads pictures, clicks words at
random, now and then a phrase, the three views, the words heard, or the files; between clicks they look for a while.
Each answer is compared with what the library says of that picture alone: texts, numbers, pictures and files. In every
round all users come anew. Memory is the server's resident set, once a second.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.alike import URI, same
from benchmarks.bench_engine import describe, machine, sayer
from benchmarks.resident import Resident, cpu_seconds
from benchmarks.visitors import Layout, Visitor
from mmcam.demo import drawn
from mmcam.demo.looks import Look, heard_by, look, side_by_side
from mmcam.demo.served import Served, serve
from mmcam.scenes.draw import draw
from mmcam.scenes.questions import questions
from mmcam.scenes.source import Scenes

KINDS = ("captioning", "vqa", "classification")
CHOICES = {"word": 12, "phrase": 3, "three": 1, "heard": 1, "files": 1, "picture": 2}
"""How often a user does what."""


@dataclass(frozen=True, eq=False)
class Alone:
    """A picture, and what the library says of it when it is asked alone.

    Attributes:
        data: The picture as it is uploaded.
        question: That is asked of it.
        found: What is said of it.
        pages: What the page has to show: by kind of request, and number of the word.
    """

    data: bytes
    question: str
    found: Look
    pages: dict[tuple[str, tuple[int, ...]], str]


@dataclass
class Log:
    """What the users saw: seconds by kind of request, and what went wrong.

    Attributes:
        seconds: Of each answer.
        wrong: Answers that are not what the library says.
        failed: Requests without an answer, by what was said.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if an answer was wrong or missing."""
    options = _parse(arguments)
    say = sayer(options.out)
    facts = machine("cpu")
    say("# The demo under load\n")
    say(describe({k: v for k, v in facts.items() if k not in ("captum", "grad-cam", "torchcam")}, options.seed) + "\n")
    say(
        f"{options.kind}: {options.users} users, {options.seconds:g} seconds a round, {options.rounds} rounds, "
        f"{options.pictures} pictures, {options.think:g} seconds between an answer and the next click on average"
    )
    log, resident = Log(), Resident()
    with server(options.config or f"{options.kind}/scenes", options.device) as (url, process):
        layout = Layout(url)
        one = serve(options.config or f"{options.kind}/scenes", options.device)
        slug = one.kind.lower()
        looks = tuple(layout.defaults(slug, "word").values())[-3:]
        known = [alone(one, number, looks) for number in range(options.pictures)]
        with resident.watching(process.pid):
            before(layout, slug, known, options, log)
            resident.mark(f"{options.before} users came and went")
            for number in range(options.rounds):
                crowd(layout, slug, known, options, log, options.seconds, seed=number)
                time.sleep(options.rest)
                resident.mark(f"round {number + 1}")
        used = cpu_seconds(process.pid)
    say("\n" + table(log))
    say(f"\nwrong answers: {len(log.wrong)}; requests that failed: {sum(log.failed.values())}")
    for text in [*log.wrong[:5], *(f"{count} x {text}" for text, count in log.failed.most_common(5))]:
        say(f"- {text}")
    count = sum(map(len, log.seconds.values()))
    say(f"\n{count} answers; the server used {used:.0f} s of processor time in all\n\n" + resident.table())
    if options.out:
        report = {"facts": facts, "options": vars(options), "seconds": log.seconds, "wrong": log.wrong}
        report |= {"failed": log.failed, "resident": resident.samples, "marks": resident.marks}
        options.out.with_suffix(".json").write_text(json.dumps(report, default=str), encoding="utf-8")
    return int(bool(log.wrong or log.failed))


@contextmanager
def server(config: str, device: str = "cpu") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `mmcam demo` as a process of its own; its address and the process."""
    command = [sys.executable, "-m", "mmcam", "demo", "--config", config, "--device", device]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "http" in line), "")
        if not line:
            raise RuntimeError(f"the server did not start: {' '.join(command)}")
        yield line.split()[2], process
    finally:
        process.terminate()
        process.wait(60)


def alone(one: Served, number: int, looks: tuple[Any, ...]) -> Alone:
    """Ask the library about a scene, without any page."""
    scene = Scenes("test", 1000 + number, 0).scene(900 + number)
    picture = draw(scene)[0]
    data = io.BytesIO()
    picture.save(data, "PNG")
    question = questions(scene, 4)[0].text if one.needs else ""
    found = look(one, picture, question)
    count = len(found.words)
    pages: dict[tuple[str, tuple[int, ...]], str] = {
        ("word", (row,)): drawn.figure(found, [row], *looks) for row in range(count)
    }
    for rows in {tuple(sorted({number % count, (number + step) % count})) for step in (1, 2)}:
        if len(rows) > 1:
            pages["phrase", rows] = drawn.figure(found, rows, *looks)
    rows = (number % count,)
    pages["three", rows] = drawn.beside(side_by_side(found, rows), found, *looks[:2])
    if one.kind != "Classification":
        pages["heard", rows] = drawn.words_heard(heard_by(found, rows))
    pages["files", ()] = drawn.files(found, one.config, *looks)
    return Alone(data.getvalue(), question, found, pages)


def before(layout: Layout, slug: str, known: list[Alone], options: argparse.Namespace, log: Log) -> None:
    """Let others come first, one after another: with them the server holds as many users as it ever will."""

    def look_in(number: int) -> None:
        with closing(Visitor(layout, slug)) as visitor:
            user = User(visitor, known, Random(f"{options.seed} before {number}"), Log())
            user.new_picture()
        log.wrong.extend(user.log.wrong)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(look_in, range(options.before)))


def crowd(
    layout: Layout, slug: str, known: list[Alone], options: argparse.Namespace, log: Log, seconds: float, seed: int = 0
) -> None:
    """Let all users come, and wait until the last has gone."""
    until = time.monotonic() + seconds

    def come(number: int) -> None:
        random = Random(f"{options.seed} {seed} {number}")
        time.sleep(random.random() * min(options.think, seconds))
        with closing(Visitor(layout, slug)) as visitor:
            User(visitor, known, random, log).stay(until, options.think)

    with ThreadPoolExecutor(options.users) as pool:
        for done in [pool.submit(come, number) for number in range(options.users)]:
            done.result()


class User:
    """One who clicks at random, and knows what they should see."""

    def __init__(self, visitor: Visitor, known: list[Alone], random: Random, log: Log) -> None:
        """Sit down before the page."""
        self.visitor, self.known, self.random, self.log = visitor, known, random, log
        self.seen: Alone | None = None
        self.shown: list[int] = []

    def stay(self, until: float, think: float) -> None:
        """Click until it is late."""
        while time.monotonic() < until:
            (kind,) = self.random.choices(list(CHOICES), list(CHOICES.values())) if self.seen else ["picture"]
            try:
                self.take(kind)
            except Exception as error:
                with self.log.lock:
                    self.log.failed[f"{kind}: {type(error).__name__}: {error}"] += 1
            time.sleep(self.random.uniform(0.5, 1.5) * think)

    def take(self, kind: str) -> None:
        """Make one request of a kind, time it, compare the answer."""
        if kind == "picture" or self.seen is None:
            self.new_picture()
            return
        offered = [rows for name, rows in self.seen.pages if name == kind]
        if not offered:
            return
        rows = self.random.choice(offered)
        if kind in ("word", "three", "heard"):  # the latter two are about the word that is shown
            (row,) = rows
            ticked = sorted({*self.shown} ^ {row})  # a click ticks a box, or unticks it
            self.shown = [row]
            self.timed("word", rows, lambda: self.visitor.call("word", words=ticked)["figure"])
        if kind == "phrase":
            self.shown = list(rows)
            self.timed(kind, rows, lambda: self.visitor.call("phrase", words=list(rows))["figure"])
        elif kind != "word":
            self.timed(kind, rows, lambda: next(iter(self.visitor.call(kind).values())))

    def new_picture(self) -> None:
        """Upload one and have it explained."""
        seen, self.seen = self.random.choice(self.known), None
        start = time.perf_counter()
        picture = self.visitor.upload(seen.data, f"{self.random.randrange(10**6)}.png")
        sent = time.perf_counter()
        page = self.visitor.call("show", picture=picture, question=seen.question)
        took = time.perf_counter() - sent
        labels = "|".join(label for label, _ in page["words"]["choices"])
        right = same(labels, "|".join(label for label, _ in drawn.chips(seen.found)))
        first = page["words"]["value"]
        self.note("upload", sent - start, True, "")
        self.note("picture", took, right and same(page["figure"], seen.pages["word", tuple(first)]), labels)
        self.seen, self.shown = seen, first

    def timed(self, kind: str, rows: tuple[int, ...], call: Callable[[], str]) -> None:
        """Make a request, and compare what came."""
        assert self.seen is not None
        start = time.perf_counter()
        page = call()
        took = time.perf_counter() - start
        self.note(kind, took, same(page, self.seen.pages[kind, rows]), URI.sub("…", page)[:200])

    def note(self, kind: str, seconds: float, right: bool, came: str) -> None:
        """Keep what was seen."""
        with self.log.lock:
            self.log.seconds[kind].append(seconds)
            if not right:
                self.log.wrong.append(f"{kind}: {came}")


def table(log: Log) -> str:
    """Milliseconds by kind of request."""
    lines = ["| request | answers | median, ms | 95 %, ms | longest, ms |", "|---|---:|---:|---:|---:|"]
    for kind, seconds in sorted(log.seconds.items()):
        figures = (statistics.median(seconds), float(np.quantile(seconds, 0.95)), max(seconds))
        lines.append(f"| {kind} | {len(seconds)} | " + " | ".join(f"{1000 * value:.0f}" for value in figures) + " |")
    return "\n".join(lines)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="captioning")
    parser.add_argument("--config", default="", help="another configuration than the embedded one of the kind")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--think", type=float, default=1.0, help="seconds between an answer and the next click, on average"
    )
    parser.add_argument("--before", type=int, default=100, help="users who come and go first; 100 are remembered")
    parser.add_argument("--rest", type=float, default=12.0, help="seconds after a round")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
