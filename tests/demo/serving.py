"""A running page for tests."""

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MOST_BYTES = 3_000_000


@contextmanager
def serving(served) -> Iterator[str]:
    """Serve models on a free port of this machine."""
    from mmcam.demo import build, launch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gradio's own
        page = build(list(served), most_bytes=MOST_BYTES, most_pixels=4_000_000)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = launch(page, port=port, most_bytes=MOST_BYTES)
    try:
        yield url
    finally:
        page.close(verbose=False)
