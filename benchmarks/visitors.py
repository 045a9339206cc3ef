"""Users of the demo, by Gradio's own protocol and nothing else: so light that they leave the cores to the server."""

import json
import secrets
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

API = "/gradio_api"
IDLE = 3.0
"""Seconds after which a connection is opened anew; the server closes idle ones after five."""
PATIENCE = 300.0
"""Seconds that an answer may take."""


class Refused(Exception):
    """The server answered that it cannot; the text says why."""


class Layout:
    """What the page's functions are called, what they want and what they give.

    Attributes:
        host: Name and port of the server.
        parts: The page's components by number.
        functions: The page's functions by name.
    """

    def __init__(self, url: str) -> None:
        """Ask a server.

        Args:
            url: Its address.
        """
        self.host = urlsplit(url).netloc
        with closing(HTTPConnection(self.host, timeout=PATIENCE)) as connection:
            config = asked(connection, "GET", "/config")
        self.parts = {part["id"]: part for part in config["components"]}
        self.functions = {function["api_name"]: function for function in config["dependencies"]}

    def name(self, number: int, slug: str) -> str:
        """What a component is called here: the end of its id, or the first word of its label."""
        props = self.parts[number]["props"]
        label = str(props.get("label") or "").split()
        return str(props.get("elem_id") or "").removeprefix(f"{slug}-") or (label[0].lower() if label else "")

    def defaults(self, slug: str, function: str) -> dict[str, Any]:
        """What the page sends to a function if the user touches nothing."""
        found = {}
        for number in self.functions[f"{slug}_{function}"]["inputs"]:
            part = self.parts[number]
            value = None if part["type"] in ("state", "image") else part["props"].get("value")
            found[self.name(number, slug) or str(number)] = value
        return found


class Visitor:
    """One user with a session of their own.

    Attributes:
        layout: The page.
        slug: The tab.
    """

    def __init__(self, layout: Layout, slug: str) -> None:
        """Open the page."""
        self.layout, self.slug = layout, slug
        self.session = secrets.token_hex(6)
        self._calls = HTTPConnection(layout.host, timeout=PATIENCE)
        self._used = time.monotonic()

    def close(self) -> None:
        """Leave."""
        self._calls.close()

    def upload(self, data: bytes, name: str) -> dict[str, Any]:
        """Send a picture; what names it afterwards."""
        edge = secrets.token_hex(16)
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        (path,) = self._asked(f"{API}/upload", body, kind)
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def call(self, function: str, **values: Any) -> dict[str, Any]:  # noqa: ANN401
        """Do what a click does.

        Args:
            function: Its name without the tab's.
            values: Of the inputs that are not as the page has them at first.

        Returns:
            What the page shows then, by the names of its parts; those without a name by their number.

        Raises:
            Refused: The server says why not.
        """
        chosen = self.layout.functions[f"{self.slug}_{function}"]
        data = list((self.layout.defaults(self.slug, function) | values).values())
        body = {"data": data, "fn_index": chosen["id"], "session_hash": self.session, "trigger_id": None}
        found = self._queued(body) if chosen["queue"] else self._asked(f"{API}/run/{chosen['api_name']}", body)["data"]
        names = [self.layout.name(number, self.slug) or str(number) for number in chosen["outputs"]]
        return dict(zip(names, found, strict=True))

    def _asked(self, path: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401
        """Post by the connection that is kept open; after an error, or a while, by a new one."""
        if time.monotonic() - self._used > IDLE:
            self._calls.close()
        try:
            found = asked(self._calls, "POST", path, body, headers)
        except Exception:
            self._calls.close()
            raise
        self._used = time.monotonic()
        return found

    def _queued(self, body: dict[str, Any]) -> list[Any]:
        event = self._asked(f"{API}/queue/join", body)["event_id"]
        stream = HTTPConnection(self.layout.host, timeout=PATIENCE)
        try:
            stream.request("GET", f"{API}/queue/data?session_hash={self.session}")
            until = time.monotonic() + PATIENCE
            with stream.getresponse() as answer:
                for line in answer:
                    if line.startswith(b"data:"):
                        message = json.loads(line[5:])
                        if message["msg"] == "process_completed" and message.get("event_id") == event:
                            if not message["success"]:
                                raise Refused(str(message["output"].get("error")))
                            return message["output"]["data"]
                    if time.monotonic() > until:
                        raise Refused(f"no answer within {PATIENCE:g} seconds")
            raise Refused("the stream of answers ended without one")
        finally:
            stream.close()


def asked(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: Any = None,  # noqa: ANN401
    headers: dict[str, str] | None = None,
) -> Any:  # noqa: ANN401
    """Send one request and read its JSON.

    Args:
        connection: Kept open.
        method: GET or POST.
        path: On the server.
        body: Bytes as they are, all else as JSON.
        headers: More of them.

    Raises:
        Refused: The status is not 200.
    """
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise Refused(f"{path}: status {answer.status}, {data[:200].decode(errors='replace')}")
    return json.loads(data)
