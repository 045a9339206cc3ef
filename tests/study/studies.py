"""Studies without a dump, people who answer them, and dumps of few places."""

import json
import random
import threading
from contextlib import contextmanager

import torch

from mmcam.dumps.store import MapWriter
from mmcam.explanation import Explanation
from mmcam.study.answers import Answer
from mmcam.study.candidates import Candidate
from mmcam.study.choose import checks, choose, trials
from mmcam.study.plan import Study
from mmcam.study.server import serve

KINDS = ("cat", "dog", "pizza", "tree", "sun")


def candidates(count, kind="discrimination"):
    """One picture after the other, each with two kinds of things; both can be asked about."""
    found = []
    for number in range(count):
        a, b = KINDS[number % 5], KINDS[(number + 1 + number // 5 % 4) % 5]
        for right, other in ((a, b), (b, a)):
            name = f"p{number}"
            found.append(Candidate(name, name, "", right, (0,), right, "" if kind == "trust" else other))
    return found


def study(pairs=16, methods=("grad_cam", "guided"), kind="discrimination", seed=0, attention=2):
    rng = random.Random(seed)
    asked = trials(choose(candidates(2 * pairs, kind), pairs, rng), len(methods), kind, rng)
    every = (*asked, *checks(asked, attention, kind, rng))
    return Study(f"study{seed}", kind, "Title", ("Consent.",), tuple(methods), every, {"seed": seed})


def codes(made, count, seed=0):
    """Codes of people, as many in each group."""
    rng, found = random.Random(seed), []
    letters = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
    while len(found) < count:
        text = "".join(rng.choice(letters) for _ in range(8))
        code = f"{text[:4]}-{text[4:]}"
        if made.group(code) == len(found) % made.groups:
            found.append(code)
    return found


def right_value(made, trial, code):
    """What somebody answers who knows: from what is shown left and right, and from nothing else."""
    options = [0, 1] if not made.group(code) % 2 else [1, 0]
    if made.kind == "trust" and trial.is_check:
        options = [0, 1]
    side = options.index(trial.key)
    return (2 * side - 1) * 2 if made.kind == "trust" else side


def person(made, code, skill, rng, attentive=True):
    """The answers of a simulated participant who is right with a probability that each method has."""
    found = []
    for name in made.plan(code):
        trial = made.by_id[name]
        value = right_value(made, trial, code)
        p = float(attentive) if trial.is_check else skill[made.methods[trial.method]]
        if rng.random() >= p:
            value = -value if made.kind == "trust" else 1 - value
        found.append(Answer(code, name, value, 1500))
    return found


def explanation(name, words, signed=None, method="grad_cam", prompt="", size=(30, 40)):
    signed = torch.rand(len(words), 3, 4) + 0.1 if signed is None else signed
    scores = -torch.arange(1.0, len(words) + 1)
    window = (0.0, 0.0, float(size[0]), float(size[1]))
    return Explanation(name, prompt, tuple(words), scores, signed, size, window, method, "conv2")


def at(*places):
    """Maps of 3 x 4, each with one place that is not zero."""
    maps = torch.zeros(len(places), 3, 4)
    for row, (y, x) in enumerate(places):
        maps[row, y, x] = 1.0
    return maps


def write_dump(path, ones, others=None, methods=("grad_cam",), count=40, data="tests.truths.Halves"):
    section = {"class_path": data, "init_args": {"count": count}}
    config = {"task": {"class_path": "tests.tiny_task.TinyTask"}, "data": section, "settings": {}}
    with MapWriter(path, config=json.loads(json.dumps(config)), layer=ones[0].layer, methods=methods) as maps:
        maps.append(ones, others=others)
    return path


@contextmanager
def serving(folder):
    """Serve a study from a thread of this process."""
    server = serve(Study.load(folder), folder, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    server.store.close()
