"""A server for people's answers, on this machine's own address: behind it stands a page, a file of answers, no more.

    GET  /                 the page
    GET  /picture/NAME     a picture of the study, by its name out of the plan
    POST /api/begin        {} or {"code": …} → {"code": …, "answered": [names of trials]}
    POST /api/answer       {"code", "trial", "value", "milliseconds"} → {"kept": true}

What is not expected gets an error in JSON and changes nothing. No path comes from a request: a picture's name has to be
one of the plan. Only a `Host` of this machine is answered, so that no other page can reach the server by a name of its
own; and only `application/json` is read, which no other page may send without asking first.
"""

import json
import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mmcam.errors import UserError
from mmcam.study.answers import Refused, Store
from mmcam.study.page import page, policy
from mmcam.study.plan import PICTURES, Study

__all__ = ["StudyServer", "serve"]

logger = logging.getLogger(__name__)

LARGEST = 4096
"""Bytes of a request's body."""
PATIENCE = 30
"""Seconds that a connection may keep still."""


class StudyServer(ThreadingHTTPServer):
    """Serves a study until `shutdown`.

    Attributes:
        url: Where.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, study: Study, folder: Path, store: Store, port: int = 0) -> None:
        """Bind to 127.0.0.1.

        Args:
            study: What is asked.
            folder: Of the study, where its pictures are.
            store: Where answers go.
            port: 0 takes a free one.

        Raises:
            UserError: A picture is missing, or the port is taken.
        """
        self.store = store
        self.html = page(study).encode()
        self.policy = policy(served=True) + "; frame-ancestors 'none'"
        self.pictures: dict[str, Path] = {
            f"/picture/{name}": folder / PICTURES / name for trial in study.trials for name in trial.pictures
        }
        for file in self.pictures.values():
            if not file.is_file():
                raise UserError(f"{file}: expected a picture of the study, but it is missing; make the study again")
        try:
            super().__init__(("127.0.0.1", port), _Request)
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port}: expected a free one, but: {error}; take another, or 0 for any") from error
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Note what went wrong; no address is written anywhere."""
        logger.debug("a request failed", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: StudyServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "mmcam", ""
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Send the page or a picture."""
        if not self._is_ours():
            return
        # A body is not read, so it must not be read as the next request.
        self.close_connection |= any(name in self.headers for name in ("Content-Length", "Transfer-Encoding"))
        if self.path == "/":
            self._send(200, self.server.html, "text/html; charset=utf-8")
        elif file := self.server.pictures.get(self.path):
            self._send(200, file.read_bytes(), "image/jpeg")
        else:
            self._refuse(404, "there is no such page")

    def do_POST(self) -> None:
        """Take an answer."""
        if not self._is_ours():
            return
        if self.path not in ("/api/begin", "/api/answer"):
            self._refuse(404, "there is no such page")
            return
        found = self._body()
        if found is None:
            return
        try:
            content = self._begin(found) if self.path == "/api/begin" else self._answer(found)
        except Refused as error:
            self._json(error.status, {"error": str(error)})
        except Exception:
            logger.exception("an answer could not be kept")
            self._refuse(500, "the answer could not be kept; try again")
        else:
            self._json(200, content)

    def log_message(self, format: str, *args: object) -> None:
        """Write down nobody's address."""

    def _begin(self, found: dict[str, Any]) -> dict[str, Any]:
        if not set(found) <= {"code"}:
            raise Refused("expected a code or nothing")
        if "code" in found:
            return {"code": found["code"], "answered": self.server.store.answered(found["code"])}
        return {"code": self.server.store.begin(), "answered": []}

    def _answer(self, found: dict[str, Any]) -> dict[str, Any]:
        self.server.store.add(found.pop("code", None), found)
        return {"kept": True}

    def _is_ours(self) -> bool:
        if self.headers.get("Host") in self.server.hosts:
            return True
        self._refuse(421, "expected a host of this machine")
        return False

    def _body(self) -> dict[str, Any] | None:
        """What was sent; None if it is no JSON object of a modest size, which is told."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            self._refuse(411, "expected a length")
        elif len(length) > 9 or int(length) > LARGEST:
            self._refuse(413, f"expected {LARGEST} bytes at most")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415, "expected application/json")
        else:
            content = self.rfile.read(int(length))
            try:
                found = json.loads(content)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                return found
            self._refuse(400, "expected a JSON object")
        return None

    def _refuse(self, status: int, message: str) -> None:
        """Tell, and close: what was not read of this request must not be read as the next one."""
        self.close_connection = True
        self._json(status, {"error": message})

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **({"Connection": "close"} if self.close_connection else {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def serve(study: Study, folder: Path, port: int = 8765) -> StudyServer:
    """Make a server that stores answers in the study's folder; `serve_forever()` runs it.

    Args:
        study: What is asked.
        folder: Of the study.
        port: 0 takes a free one.

    Raises:
        UserError: The port is taken, or the folder holds the answers to another study.
    """
    store = Store(folder, study)
    try:
        return StudyServer(study, folder, store, port)
    except BaseException:
        store.close()
        raise
