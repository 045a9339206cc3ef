"""What stands between the web and Gradio: what a page may load, what a client may ask for, and how pictures are read.

Gradio fetches whatever http address a client puts in the place of an upload, streams any such address by its route
`file=`, and opens uploads with every format that PIL knows. Here all that is refused; pictures are read by
`mmcam.image.read_image` alone.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from PIL import Image

from mmcam.errors import UserError
from mmcam.image import read_image

__all__ = ["MOST_PIXELS", "Guard", "Page", "picture_input", "said"]

logger = logging.getLogger(__name__)

MOST_PIXELS = 50_000_000
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
CLOSED = re.compile(
    r"(?:file|proxy)[=/]\s*https?:|/proxy=|/component_server|/monitoring|/process_recording|/vibe|/undo-vibe|/deep_link|"
    r"/dev/reload|/run-history|/profiling|/custom_component",
    re.IGNORECASE,
)
"""Routes of Gradio that nothing here needs, and two that would fetch from other hosts."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
P = ParamSpec("P")
R = TypeVar("R")


class Guard:
    """ASGI middleware: refuses foreign names of this host and closed routes, and tells browsers to stay here."""

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Sequence[str] = LOOPBACK) -> None:
        """Stand before an application.

        Args:
            app: Gradio's.
            hosts: Names by which this host may be called, against pages that rebind their own name to loopback; any
                if empty.
        """
        self.app = app
        self.hosts = tuple(hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        name = re.sub(r":\d*$", "", host).lower()
        if self.hosts and name not in self.hosts:
            await _refuse(send, 421, f"this demo answers to {' and '.join(self.hosts)} only")
        elif scope["type"] != "http" or CLOSED.search(scope["path"]):
            await _refuse(send, 403, "this demo has no such page")
        else:

            async def with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", ()), *HEADERS]
                await send(message)

            await self.app(scope, receive, with_headers)


class Page(gr.Blocks):
    """Gradio's page, but no input of a client makes the server fetch anything."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *others: Any, **named: Any) -> Any:  # noqa: ANN401
        """Refuse addresses in the place of files before Gradio follows them."""
        if any(re.match(r"\s*https?:", path, re.IGNORECASE) for path in _paths(inputs)):
            raise gr.Error("expected an uploaded picture, got an address; upload the file", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *others, **named)


def picture_input(most_pixels: int = MOST_PIXELS, **options: Any) -> gr.Image:  # noqa: ANN401
    """Make a picture input whose uploads are read by `read_image`; events get an RGB picture, or None.

    Args:
        most_pixels: Larger pictures are refused.
        options: Of `gradio.Image`.
    """
    # A lossless copy of a sample: its explanation is that of the sample.
    picture = gr.Image(type="filepath", format="png", **options)

    def preprocess(payload: Any) -> Image.Image | None:  # noqa: ANN401
        if payload is None:
            return None
        return _read(payload.path, payload.orig_name or "the picture", most_pixels)

    # No subclass: Gradio writes a stub file beside the source of every one.
    picture.preprocess = preprocess  # pyright: ignore[reportAttributeAccessIssue]
    return picture


def said(function: Callable[P, R]) -> Callable[P, R]:
    """Let a user's mistakes reach the page in words, and all else the log alone."""

    @wraps(function)
    def saying(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except gr.Error:
            raise
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            logger.exception("the demo failed")
            text = "out of memory; choose a smaller picture" if "memory" in str(error) else "something went wrong here"
            raise gr.Error(f"{text}; the server's log says more", print_exception=False) from error

    return saying


@said
def _read(path: str, name: str, most_pixels: int) -> Image.Image:
    try:
        return read_image(path, max_pixels=most_pixels)
    except UserError as error:  # its text names a path of the server
        raise UserError(str(error).replace(repr(path), repr(name))) from error


def _paths(tree: object) -> Iterator[str]:
    """All that Gradio may take for a file's path or address."""
    if isinstance(tree, dict):
        for key in ("path", "url"):
            # Browsers send the address at which they see their own upload.
            if isinstance(tree.get(key), str) and not (key == "url" and tree.get("path")):
                yield tree[key]
        for value in tree.values():
            yield from _paths(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _paths(value)


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
