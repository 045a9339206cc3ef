"""Pictures from the web: a fake resolver, and servers of this machine that stand for the internet."""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmcam.demo.fetch import fetch, public
from mmcam.errors import UserError

PUBLIC = "93.184.215.14"
DATA = b"\x89PNG picture"


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "2002:0808:0808::1"])
def test_public_addresses(address):
    assert public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",  # where clouds keep their secrets
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "2002:7f00:0001::",  # 6to4 of 127.0.0.1
        "64:ff9b::7f00:1",  # NAT64 of the same
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
        "localhost",
        "",
    ],
)
def test_other_addresses_are_refused(address):
    assert not public(address)


class Web:
    """A server of this machine in the place of every public address; notes who was connected to."""

    def __init__(self, answers):
        web, self.answers, self.asked, self.addresses = self, answers, [], []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                web.asked.append((self.headers["Host"], self.path))
                status, headers, body = web.answers[self.path]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for chunk in body:
                        self.wfile.write(chunk)
                        self.wfile.flush()
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def connect(self, address, port, timeout):
        self.addresses.append((address, port))
        return socket.create_connection(self.server.server_address, timeout)


@pytest.fixture
def web():
    made = []

    def make(answers):
        made.append(Web(answers))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def names(table):
    """A resolver out of a table; of a list of lists each call takes the next."""
    calls = []

    def resolver(host, port):
        calls.append(host)
        if host not in table:
            raise socket.gaierror("not known")
        return table[host]() if callable(table[host]) else table[host]

    resolver.calls = calls
    return resolver


def never(*_):
    raise AssertionError("connected")


def test_a_picture_comes_from_the_address_that_was_checked(web):
    here = web({"/a.png?x=1": (200, {"Content-Length": str(len(DATA))}, [DATA])})
    resolver = names({"pictures.example": [PUBLIC]})
    data = fetch("http://pictures.example/a.png?x=1#part", resolver=resolver, connect=here.connect)
    assert data == DATA
    assert here.addresses == [(PUBLIC, 80)]
    assert here.asked == [("pictures.example", "/a.png?x=1")]
    assert resolver.calls == ["pictures.example"]  # once: a name that changes in between is of no use


def test_a_name_that_changes_its_mind_is_checked_at_every_hop(web):
    """DNS rebinding: public at first, this machine at the second look."""
    here = web({"/a": (302, {"Location": "/b", "Content-Length": "0"}, []), "/b": (200, {}, [b"secret"])})
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    resolver = names({"rebind.example": lambda: next(answers)})
    with pytest.raises(UserError, match="open internet"):
        fetch("http://rebind.example/a", resolver=resolver, connect=here.connect)
    assert here.addresses == [(PUBLIC, 80)]
    assert here.asked == [("rebind.example", "/a")]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://inside.example/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "//inside.example/x",
        "file:///etc/passwd",
        "ftp://pictures.example/x",
        "gopher://pictures.example/x",
        "http://pictures.example:22/",
        "http://user:word@pictures.example/",
    ],
)
def test_redirects_are_checked_again(web, target):
    here = web({"/go": (302, {"Location": target, "Content-Length": "0"}, [])})
    table = {host: [host] for host in ("127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")}
    table |= {"pictures.example": [PUBLIC], "localhost": ["127.0.0.1", "::1"], "inside.example": ["10.1.2.3"]}
    with pytest.raises(UserError):
        fetch("http://pictures.example/go", resolver=names(table), connect=here.connect)
    assert here.addresses == [(PUBLIC, 80)]


def test_one_private_address_among_public_ones_is_enough(web):
    here = web({})
    resolver = names({"mixed.example": [PUBLIC, "192.168.0.1"]})
    with pytest.raises(UserError, match="open internet"):
        fetch("http://mixed.example/", resolver=resolver, connect=here.connect)
    assert here.addresses == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "localhost", "[::1]", "0"])
def test_other_spellings_of_this_machine(host):
    """By the system's own resolver, which knows them; nothing is connected to."""
    with pytest.raises(UserError):
        fetch(f"http://{host}/", connect=never)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pictures.example/a.png",
        "http://",
        "http:///a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "http://pictures.example:8080/",
        "http://pictures.example:99999/",
        "http://[::1/",
        "http://a b/",
        "http://pictures.example/\r\nHost: other",
        "http://pictures.example/" + "a" * 2000,
    ],
)
def test_addresses_that_are_none(url):
    with pytest.raises(UserError, match="expected"):
        fetch(url, resolver=names({"pictures.example": [PUBLIC]}), connect=never)


def test_too_many_redirects(web):
    here = web({"/go": (302, {"Location": "/go", "Content-Length": "0"}, [])})
    with pytest.raises(UserError, match="redirects"):
        fetch("http://pictures.example/go", resolver=names({"pictures.example": [PUBLIC]}), connect=here.connect)
    assert len(here.addresses) == 4


@pytest.mark.parametrize("headers", [{"Content-Length": "5000"}, {"Content-Length": "4999"}, {}])
def test_large_files(web, headers):
    here = web({"/a": (200, headers, [b"x" * 1000] * 5)})
    with pytest.raises(UserError, match=r"at most 0\.002 MB"):
        fetch(
            "http://pictures.example/a",
            most_bytes=2000,
            resolver=names({"pictures.example": [PUBLIC]}),
            connect=here.connect,
        )


def test_a_server_that_drips_is_left_at_the_limit_of_the_whole(web):
    def drip():
        while True:
            time.sleep(0.05)
            yield b"x"

    here = web({"/a": (200, {}, drip())})
    start = time.monotonic()
    with pytest.raises(UserError, match=r"within 0\.4 seconds"):
        fetch(
            "http://pictures.example/a",
            seconds=0.4,
            resolver=names({"pictures.example": [PUBLIC]}),
            connect=here.connect,
        )
    assert time.monotonic() - start < 3


def test_files_that_end_early_or_are_not_there(web):
    here = web({"/cut": (200, {"Content-Length": "100"}, [b"x"]), "/gone": (404, {"Content-Length": "0"}, [])})
    resolver = names({"pictures.example": [PUBLIC]})
    with pytest.raises(UserError, match="connection failed"):
        fetch("http://pictures.example/cut", resolver=resolver, connect=here.connect)
    with pytest.raises(UserError, match="status 404"):
        fetch("http://pictures.example/gone", resolver=resolver, connect=here.connect)
    with pytest.raises(UserError, match="no address"):
        fetch("http://unknown.example/", resolver=resolver, connect=here.connect)


def test_https_wants_a_certificate_of_the_name(web):
    """The other side speaks no TLS at all: nothing is sent in the clear."""
    here = web({"/": (200, {}, [DATA])})
    with pytest.raises(UserError, match="connection failed"):
        fetch("https://pictures.example/", resolver=names({"pictures.example": [PUBLIC]}), connect=here.connect)
    assert here.addresses == [(PUBLIC, 443)]
    assert here.asked == []
