"""What a server that runs for long keeps, and what it forgets."""

import ctypes
import gc
import io
import os
import sys
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from benchmarks.bench_demo import alone
from benchmarks.resident import resident
from benchmarks.visitors import Layout, Refused, Visitor
from mmcam.demo.kept import Look
from mmcam.demo.looks import look
from mmcam.demo.memory import forget, forget_shown, give_back, steady
from mmcam.demo.samples import samples

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture(scope="module")
def found(served):
    return look(served["captioning"], samples()[2].picture)


def test_bytes_of_a_look_by_hand(found):
    """Every tensor's storage once: what the network got, what the trunk left, the words, the maps."""
    kept = [found.batch.images, found.activations, *found.batch.inputs.values()]
    kept += [value for value in found.batch.memo.values() if isinstance(value, torch.Tensor)]
    kept += [value for value in vars(found.targets).values() if isinstance(value, torch.Tensor)]
    kept += [found.explanation.signed, found.explanation.scores]
    assert found.shown.signed.data_ptr() == found.explanation.signed.data_ptr()
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    assert found.nbytes == sum(storages.values()) + 384 * 384 * 4
    assert found.nbytes < 1_500_000  # for the embedded models; a hundred users are 150 MB at most


class Heavy(Look):
    """A look that says how much it weighs."""

    def __init__(self, nbytes):
        self.__dict__["nbytes"] = nbytes


def test_the_oldest_are_forgotten_until_the_rest_fits():
    sessions = [{1: Heavy(10), 2: [0]}, {1: Heavy(20), 3: Heavy(5)}, {1: None}, {1: Heavy(40)}]
    assert forget(sessions, 75) == 0
    assert forget(sessions, 74) == 1
    assert list(sessions[0]) == [2]
    assert forget(sessions, 44) == 2
    assert list(sessions[1]) == []
    assert forget(sessions, 1) == 0  # who is just being served keeps what is seen
    assert list(sessions[3]) == [1]


def test_what_was_shown_is_not_kept():
    config = {1: {"props": {"value": "x" * 99, "label": "a"}}, 2: {"props": {}}, 3: {"props": {"value": 5}}}
    forget_shown(config, [1, 2, 4])
    assert config == {1: {"props": {"value": None, "label": "a"}}, 2: {"props": {}}, 3: {"props": {"value": 5}}}


def test_sessions_of_the_running_page_keep_no_page(server, served):
    """After a look, a click and the files, a session holds the look and hardly a byte of text."""
    layout = Layout(server)
    known = alone(served["captioning"], 0, tuple(layout.defaults("captioning", "word").values())[-3:])
    visitor = Visitor(layout, "captioning")
    visitor.call("show", picture=visitor.upload(known.data, "a.png"))
    visitor.call("word", words=[0, 1])
    visitor.call("files")
    visitor.close()
    page = next(blocks for blocks in _pages() if visitor.session in blocks.state_holder.session_data)
    session = page.state_holder.session_data[visitor.session]
    assert sum(isinstance(value, Look) for value in session.state_data.values()) == 1
    assert sum(len(text) for text in _texts(session.config_values)) < 400_000
    assert max(len(text) for text in _texts(session.config_values)) < 10_000
    assert page._queue.pending_event_ids_session.keys() <= page._queue.pending_messages_per_session.keys()
    assert len(page._queue.event_analytics) <= 1


def test_who_was_forgotten_is_told_to_press_explain(server, served):
    visitor = Visitor(Layout(server), "captioning")
    stream = io.BytesIO()
    samples()[2].picture.save(stream, "PNG")
    visitor.call("show", picture=visitor.upload(stream.getvalue(), "a.png"))
    page = next(blocks for blocks in _pages() if visitor.session in blocks.state_holder.session_data)
    held = page.state_holder.session_data[visitor.session].state_data
    assert forget([held, {}], 0) == 1
    with pytest.raises(Refused, match="press Explain"):
        visitor.call("word", words=[0])
    visitor.close()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_heaps_give_memory_back():
    """Blocks of 2 MiB are the system's again as soon as they are freed, also after a larger one."""
    if grown(lambda: True) <= 60:  # the C library's own way
        pytest.skip("other tests left free heaps in this process, of which the blocks are made: run this file alone")
    assert grown(steady) < 20
    assert grown(lambda: True, give_back) < 20


def grown(before, after=lambda: None):
    """MiB that a process holds after blocks were freed; in a process of its own, as settings cannot be taken back."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:  # which ends without pytest's clearing up
        try:
            before()
            os.write(writing, b"%.0f" % freed(after))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return float(text)


def freed(after):
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def block(size):
        found = libc.malloc(size)
        ctypes.memset(found, 1, size)
        return found

    libc.free(block(30 * 2**20))  # from here on glibc takes such blocks from the heap
    start = resident(os.getpid())
    blocks = [block(2**21) for _ in range(80)]
    for one in blocks[:-1]:
        libc.free(one)
    after()
    return resident(os.getpid()) - start


def _pages():
    return [one for one in gc.get_objects() if isinstance(one, gr.Blocks) and hasattr(one, "state_holder")]


def _texts(tree):
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _texts(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, SimpleNamespace):
        yield from _texts(vars(tree))
