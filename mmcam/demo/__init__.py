"""A web page that shows where models look: `mmcam demo`.

The page calls no other host, the server listens to this machine alone unless told otherwise, and uploads are read by
`mmcam.image.read_image`. See docs/demo.md.
"""

import os
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NoReturn

# Before the import, which reads them. Gradio keeps 10,000 records of requests and makes a table of all after every one.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"

import gradio as gr
from gradio.themes import Base
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from mmcam.demo.api import endpoint
from mmcam.demo.guard import LOOPBACK, MOST_PIXELS, Guard, Page
from mmcam.demo.memory import UNREAD, give_back
from mmcam.demo.page import tab
from mmcam.demo.served import Served
from mmcam.demo.uploads import sweep
from mmcam.errors import UserError

__all__ = ["MOST_BYTES", "SHIPPED", "build", "launch", "tend"]

SHIPPED = ("captioning/scenes", "vqa/scenes", "classification/scenes")
MOST_BYTES = 20_000_000
WAITING = 64
SESSIONS = 100
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
OFTEN = 10
"""Seconds between two looks for old uploads, and for memory that can be given back."""

HEAD = """
# Where did the model look?
Choose a picture; then choose a word, an answer or a class to see the places that speak for it (Grad-CAM).
"""


def build(
    served: Sequence[Served], *, allow_urls: bool = False, most_bytes: int = MOST_BYTES, most_pixels: int = MOST_PIXELS
) -> Page:
    """Lay out the page, with a tab a model.

    Args:
        served: The models, see `mmcam.demo.served.serve`.
        allow_urls: Whether pictures may come from the web, see `mmcam.demo.fetch`.
        most_bytes: Of such a picture.
        most_pixels: Of any picture.

    Returns:
        The page, for `launch`.
    """
    kinds = [one.kind for one in served]
    with Page(title="mmcam: where did the model look?", analytics_enabled=False) as page:
        gr.Markdown(HEAD, elem_classes="mm-head")
        with gr.Tabs():
            for number, one in enumerate(served):
                alone = kinds.count(one.kind) == 1
                with gr.Tab(one.kind if alone else f"{one.kind}: {one.name}", id=number):
                    slug = one.kind.lower() if alone else f"{one.kind.lower()}{number}"
                    tab(one, slug, allow_urls=allow_urls, most_bytes=most_bytes, most_pixels=most_pixels)
        endpoint(served, most_pixels)
    page.queue(max_size=WAITING, default_concurrency_limit=2)
    page._queue.pending_messages_per_session.max_size = UNREAD
    return page


def launch(page: Page, host: str = "127.0.0.1", port: int | None = None, *, most_bytes: int = MOST_BYTES) -> str:
    """Serve a page from threads of this process.

    Args:
        page: What `build` gave.
        host: The address to listen to; if it is loopback, requests for other names are refused.
        port: The port; a free one from 7860 on if not given.
        most_bytes: Of an upload.

    Returns:
        The page's address; `page.close()` ends it. Call `tend` meanwhile: nothing else deletes old uploads.

    Raises:
        UserError: The port is taken.
    """
    loopback = host in LOOPBACK or host == "::1" or host.startswith("127.")
    names = (*LOOPBACK, host) if loopback else ()
    os.environ["GRADIO_ALLOWED_PATHS"] = ""
    guard = Middleware(Guard, hosts=names, most_bytes=most_bytes, folder=Path(get_upload_folder()))
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_threads=16,
            max_file_size=most_bytes,
            state_session_capacity=SESSIONS,
            allowed_paths=[],
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            footer_links=["api", "settings"],
            app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None},
            theme=_theme(),
            css=resources.files("mmcam.demo").joinpath("page.css").read_text(encoding="utf-8"),
        )
    except OSError as error:
        raise UserError(
            f"expected a free port, but {port or '7860 to 7959'} is taken; choose another --port"
        ) from error
    return url


def tend(page: Page) -> NoReturn:
    """Delete old uploads and give memory back, from time to time; until interrupted.

    Gradio's own `delete_cache` ends for good if somebody uploads while it looks, and knows of no half uploads.

    Args:
        page: That is served; its folder of uploads is nobody else's.
    """
    while True:
        time.sleep(OFTEN)
        keep = {path for part in page.blocks.values() for path in part.keep_in_cache}
        gone = sweep(Path(get_upload_folder()), keep=keep)
        for names in page.temp_file_sets:
            names.difference_update(gone)
        give_back()


def _theme() -> Base:
    """Fonts of the reader's own machine, and small print that can be read."""
    theme = Base(font=FONTS, font_mono=("ui-monospace", "Consolas", "monospace"))
    faint = {"body_text_color_subdued": "#55606e", "body_text_color_subdued_dark": "#b4bcc8"}
    names = ("block_info_text_color", "block_label_text_color", "block_title_text_color")
    small = {f"{name}{dark}": faint[f"body_text_color_subdued{dark}"] for name in names for dark in ("", "_dark")}
    return theme.set(**faint, **small)
