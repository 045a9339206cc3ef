"""A running page for tests."""

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

MOST_BYTES = 3_000_000


@contextmanager
def tidy() -> Iterator[None]:
    """Close the event loops that Gradio makes to get a lock, and forgets: they would complain in another test."""
    made, new = [], asyncio.new_event_loop

    def noting():
        loop = new()
        if threading.current_thread() is threading.main_thread():
            made.append(loop)
        return loop

    asyncio.new_event_loop = noting
    try:
        yield
    finally:
        asyncio.new_event_loop = new
        asyncio.set_event_loop(None)
        for loop in made:
            loop.close()


@contextmanager
def serving(served) -> Iterator[str]:
    """Serve models on a free port of this machine; uploads lie in a folder of their own, as with `mmcam demo`."""
    from mmcam.demo import build, launch

    with ExitStack() as stack:
        uploads = stack.enter_context(TemporaryDirectory(prefix="mmcam-demo-"))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("GRADIO_TEMP_DIR", uploads)
        with tidy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Gradio's own
            page = build(list(served), most_bytes=MOST_BYTES, most_pixels=4_000_000)
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            url = launch(page, port=port, most_bytes=MOST_BYTES)
        try:
            yield url
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                page.close(verbose=False)
                gc.collect()


def ask(server, path, host=None, method="GET", body=None, headers=None):
    """A request as anybody could send it."""
    connection = HTTPConnection(urlsplit(server).netloc, timeout=30)
    connection.putrequest(method, path, skip_host=host is not None)
    for name, value in ({"Host": host} if host else {} | (headers or {})).items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), data
