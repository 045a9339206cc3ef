"""A running page for tests."""

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Serve models on a free port of this machine."""
    from mmcam.demo import build, launch

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
