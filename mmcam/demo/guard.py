"""What stands between the web and Gradio: what a page may load, what a client may ask for, and how pictures are read.

Gradio fetches whatever http address a client puts in the place of an upload, streams any such address by its route
`file=`, and opens uploads with every format that PIL knows. Here all that is refused; pictures are read by
`mmcam.image.read_image` alone.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from PIL import Image
from starlette.requests import ClientDisconnect

from mmcam.demo.memory import forget, forget_shown
from mmcam.demo.uploads import held
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
UPLOAD = re.compile(r"(?:/gradio_api)?/upload/?")
LONGEST_HEAD, LONGEST_TEXT = 100_000, 1_000_000
"""Bytes around an uploaded file, and of any other request."""
LONGEST_BODY = 120.0
LONGEST_NAME = 80
FOLDER = 100
"""How many of the largest uploads the folder has room for."""
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
    """ASGI middleware: refuses foreign names, closed routes and what is too large, and tells browsers to stay here."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        hosts: Sequence[str] = LOOPBACK,
        most_bytes: int = 20_000_000,
        folder: Path | None = None,
        seconds: float = LONGEST_BODY,
    ) -> None:
        """Stand before an application.

        Args:
            app: Gradio's.
            hosts: Names by which this host may be called, against pages that rebind their own name to loopback; any
                if empty.
            most_bytes: Of an upload.
            folder: Of uploads, which never holds more than `FOLDER` times as much; not looked at if not given.
            seconds: That a request may take to arrive.
        """
        self.app = app
        self.hosts = tuple(hosts)
        self.most_bytes, self.folder, self.seconds = most_bytes, folder, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        name = re.sub(r":\d*$", "", headers.get(b"host", "")).lower()
        if self.hosts and name not in self.hosts:
            await _refuse(send, 421, f"this demo answers to {' and '.join(self.hosts)} only")
        elif scope["type"] != "http" or CLOSED.search(scope["path"]):
            await _refuse(send, 403, "this demo has no such page")
        elif refused := self._too_much(scope, headers):
            await _refuse(send, *refused)  # before anything of the body is read
        else:
            await self._pass_on(scope, receive, send)

    def _too_much(self, scope: Message, headers: Mapping[bytes, str]) -> tuple[int, str] | None:
        """Status and reason, if a request says that it is too large, or does not say how large it is."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        declared = headers.get(b"content-length", "")
        if not declared.isdecimal():
            return 411, "expected a request that says its length (Content-Length), got one that does not; send the file"
        upload = UPLOAD.fullmatch(scope["path"]) is not None
        if int(declared) > (self.most_bytes + LONGEST_HEAD if upload else LONGEST_TEXT):
            most, came = (value / 1e6 for value in (self.most_bytes if upload else LONGEST_TEXT, int(declared)))
            return 413, f"expected a file of at most {most:g} MB, got {came:.3g} MB; make the picture smaller first"
        if upload and self.folder is not None and held(self.folder) + int(declared) > FOLDER * self.most_bytes:
            return 503, "expected room for another picture, but too many were uploaded; try again in an hour"
        return None

    async def _pass_on(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the application answer, if the request arrives in time."""
        until, arrived, begun, late = time.monotonic() + self.seconds, False, False, False

        async def in_time() -> Message:
            nonlocal arrived, late
            if arrived:  # the application waits for the client to go
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0))
            except TimeoutError:
                late = True
                return {"type": "http.disconnect"}
            arrived = not message.get("more_body", False)
            return message

        async def with_headers(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self.app(scope, in_time, with_headers)
        except ClientDisconnect:  # half an upload, which `sweep` deletes
            if late and not begun:
                await _refuse(send, 408, f"expected a request within {self.seconds:g} seconds; send a smaller picture")


class Page(gr.Blocks):
    """Gradio's page, but no input of a client makes the server fetch anything, and what it keeps is bounded."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *others: Any, **named: Any) -> Any:  # noqa: ANN401
        """Refuse addresses in the place of files before Gradio follows them."""
        if any(re.match(r"\s*https?:", path, re.IGNORECASE) for path in _paths(inputs)):
            raise gr.Error("expected an uploaded picture, got an address; upload the file", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *others, **named)

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:  # noqa: ANN401
        """Forget what need not be kept after an answer."""
        found = await super().postprocess_data(block_fn, predictions, state)
        if state is not None:
            forget_shown(state.config_values, [part._id for part in block_fn.outputs])
        if holder := getattr(self, "state_holder", None):
            forget([session.state_data for session in holder.session_data.values()])
        unread, asked = self._queue.pending_messages_per_session, self._queue.pending_event_ids_session
        for session in asked.keys() - unread.keys():
            del asked[session]
        return found


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
        return _read(payload.path, _shown(payload.orig_name or "the picture"), most_pixels)

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


def _shown(name: str) -> str:
    """A name as a user gave it, fit for a message: short, and no markup."""
    return re.sub(r"[^\w .,()+-]+", "_", name)[-LONGEST_NAME:]


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
