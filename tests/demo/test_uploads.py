"""Every kind of trouble with pictures, sent to the running page: a sentence says what is wrong; the server lives on."""

import asyncio
import io
import json
import logging
import os
import socket
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from benchmarks.measure import peak
from mmcam.demo.guard import Guard, Page
from mmcam.demo.samples import samples
from mmcam.demo.uploads import held, sweep
from tests.demo.serving import MOST_BYTES, ask, tidy

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's own


@pytest.fixture(autouse=True)
def quiet(caplog):
    """A warning of an animation is none of the server's."""
    caplog.set_level(logging.CRITICAL, "mmcam")


def encoded(picture, form, **options):
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


def scene():
    return samples()[2].picture


def posted(server, content, name=b"picture.png", field=b"files"):
    """Status and text of an upload."""
    head = b'--edge\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n' % (field, name)
    body = head + content + b"\r\n--edge--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    status, _, data = ask(server, "/gradio_api/upload", method="POST", body=body, headers=kind)
    return status, data.decode(errors="replace")


def explained(server, content, name="picture.png"):
    """The record of an uploaded picture, or the sentence that refuses it."""
    status, text = posted(server, content, name.encode())
    assert status == 200, text
    picture = {"path": json.loads(text)[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [picture, "", "", "", "", ""]}).encode()
    kind = {"Content-Type": "application/json"}
    _, _, answer = ask(server, "/gradio_api/call/explain", method="POST", body=body, headers=kind)
    _, _, events = ask(server, f"/gradio_api/call/explain/{json.loads(answer)['event_id']}")
    event, data = events.decode().strip().split("\n\n")[-1].split("\ndata: ")
    found = json.loads(data)
    return found[0] if event == "event: complete" else found["error"]


def alive(server):
    return ask(server, "/config")[0] == 200


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(side):
    """A header that promises many pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8))


def cut(form):
    data = encoded(noise(), form)
    return data[: len(data) // 2]


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
BAD = {
    "text.jpg": (b"I am no picture", "got text"),
    "empty.png": (b"", "empty"),
    "drawing.svg": (SVG, "SVG drawing"),
    "drawing.png": (SVG, "SVG drawing"),
    "declared.svg": (b'<?xml version="1.0"?>\n' + SVG, "SVG drawing"),
    "page.jpg": (b"<!doctype html><script>alert(1)</script>", "web page"),
    **{f"cut.{form.lower()}": (cut(form), "damaged") for form in ("PNG", "JPEG", "BMP", "WEBP", "GIF")},
    "huge.png": (png_header(60_000), "at most 4,000,000 pixels"),
    "huger.png": (png_header(2_000_000_000), "expected"),
    "wide.png": (encoded(Image.new("1", (4001, 1000)), "PNG"), "at most 4,000,000 pixels"),
    "bomb.gif": (encoded(Image.new("P", (2100, 2100)), "GIF"), "at most 4,000,000 pixels"),
    "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "expected a picture"),
    "document.pdf": (b"%PDF-1.7\n", "PDF"),
    "archive.jpg": (b"PK\x03\x04" + b"x" * 40, "zip"),
    "polyglot.gif": (b"GIF89a/*" + b"<script>alert(1)</script>", "GIF"),
    "program.png": (b"\x7fELF" + bytes(60), "something else"),
    "photo.heic": (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
    "pickle.png": (b"\x80\x04\x95cos\nsystem\n", "something else"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_uploads_get_a_clear_message(server, name):
    content, words = BAD[name]
    text = explained(server, content, name)
    assert words in text
    assert name in text
    for secret in ("/tmp", "mmcam-demo-", "Traceback", "site-packages"):
        assert secret not in text


def rotated(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.resize((60, 40)), "JPEG", exif=exif)


def zipped(picture):
    data = io.BytesIO(encoded(picture, "JPEG"))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("run.js", "alert(1)")
    return data.getvalue()


def grey(kind, value):
    return Image.fromarray(np.full((40, 50), value, kind))


GOOD = {
    "animated.gif": lambda p: encoded(p, "GIF", save_all=True, append_images=[Image.new("RGB", p.size)]),
    "animated.png": lambda p: encoded(p, "PNG", save_all=True, append_images=[Image.new("RGB", p.size)]),
    "cmyk.jpg": lambda p: encoded(p.convert("CMYK"), "JPEG"),
    "sixteen.png": lambda p: encoded(grey(np.uint16, 40_000), "PNG"),
    "float.tiff": lambda p: encoded(grey(np.float32, 0.5), "TIFF"),
    "palette.png": lambda p: encoded(p.convert("P"), "PNG"),
    "see-through palette.png": lambda p: encoded(p.convert("P"), "PNG", transparency=bytes([0, 128, 255])),
    "one colour see-through.gif": lambda p: encoded(p.convert("P"), "GIF", transparency=3),
    "clear.webp": lambda p: encoded(p.convert("RGBA"), "WEBP", lossless=True),
    "grey with alpha.png": lambda p: encoded(p.convert("LA"), "PNG"),
    "dot.png": lambda p: encoded(p.resize((1, 1)), "PNG"),
    "line.png": lambda p: encoded(p.resize((30_000, 2)), "PNG"),
    "no suffix": lambda p: encoded(p, "PNG"),
    "picture.html": lambda p: encoded(p, "PNG"),
    "in truth a png.jpg": lambda p: encoded(p, "PNG"),
    "damaged exif.jpg": lambda p: encoded(p, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "and a zip.jpg": zipped,
    "and a page.jpg": lambda p: encoded(p, "JPEG") + b"<html><script>alert(1)</script></html>",
    "and a program.gif": lambda p: encoded(p, "GIF", comment=b"*/=1;alert(1);/*") + b"*/",
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_pictures_are_explained(server, name):
    assert explained(server, GOOD[name](scene()), name)["words"]


def test_a_turned_photo_is_explained_upright(server):
    assert explained(server, rotated(scene()))["size"] == [60, 40]
    assert explained(server, encoded(scene().resize((60, 40)), "JPEG"))["size"] == [40, 60]


@pytest.mark.parametrize("name", ["picture.html", "picture.svg", "picture.js", "picture.xhtml"])
def test_what_is_no_picture_by_name_is_never_a_page(server, name):
    """Whoever opens an upload by its address gets a file to save."""
    for content in (encoded(scene(), "PNG"), SVG):
        path = json.loads(posted(server, content, name.encode())[1])[0]
        status, headers, _ = ask(server, f"/gradio_api/file={quote(path)}")
        assert status == 200
        assert headers["content-disposition"].startswith("attachment")
        assert headers["content-type"] == "application/octet-stream"
        assert headers["x-content-type-options"] == "nosniff"


NAMES = {
    "up": b"../../../../etc/cron.d/x.png",
    "root": b"/etc/cron.d/x.png",
    "windows": b"..\\\\..\\\\windows\\\\x.png",
    "escaped": b"%2e%2e%2f%2e%2e%2fx.png",
    "nul": b"a\0.png",
    "dots": b"..",
    "empty": b"",
    "long": b"x" * 3000 + b".png",
    "unicode": "ünï – 图片 \u202egnp.exe".encode(),
    "broken unicode": b"\xff\xfe.png",
    "markup": b"<img src=x onerror=alert(1)>.png",
    "quotes": b"a';--.png",
    "device": b"con.png",
    "hidden": b".bashrc",
    "newline": b"a%0d%0aSet-Cookie: x=1.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_lead_nowhere(server, name):
    """A file lies in the folder of uploads under some name, or the upload is refused; nothing is written elsewhere."""
    folder = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    status, text = posted(server, encoded(scene(), "PNG") + name.encode(), NAMES[name])
    assert status in (200, 400, 413), text
    if status == 200:
        for path in map(Path, json.loads(text)):
            assert path.resolve().is_relative_to(folder)
            assert path.is_file()
            assert len(path.name.encode()) < 256
    assert not [path for path in (Path("/etc/cron.d/x.png"), folder.parent / "x.png") if path.exists()]
    assert alive(server)


def test_names_in_messages_are_short_and_no_markup(server):
    text = explained(server, b"no picture", "a<img src=x onerror=alert(1)>.png")
    assert "<" not in text
    assert "got text" in text
    assert len(explained(server, b"no picture", "x" * 180 + ".png")) < 300


def test_a_file_of_200_mb_is_refused_before_it_is_read(server):
    """Really sent to the end; memory does not follow, and the answer says what to do."""
    size, block = 200_000_000, bytes(2**20)
    answer = b""

    def send():
        nonlocal answer
        with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port), timeout=30) as client:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n"
            client.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n")
            client.sendall(b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n')
            for _ in range(size // len(block)):
                client.sendall(block)
            answer = client.recv(2**16)

    before = held(Path(os.environ["GRADIO_TEMP_DIR"]))
    assert peak(send, "cpu") < 60_000_000
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"expected a file of at most 3 MB, got 200 MB" in answer
    assert held(Path(os.environ["GRADIO_TEMP_DIR"])) == before
    assert alive(server)


def test_all_that_is_too_large_or_of_unknown_length_is_refused(server):
    large = b"x" * (MOST_BYTES + 200_000)
    assert posted(server, large)[0] == 413
    status, _, text = ask(server, "/gradio_api/run/captioning_word", method="POST", body=large)
    assert status == 413
    assert b"expected a file of at most 1 MB, got 3.2 MB" in text
    with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port), timeout=30) as client:
        client.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(2**16).startswith(b"HTTP/1.1 411")


def test_many_bad_uploads_at_once(server):
    """Each is told what is wrong with its own, and good pictures go through between them."""
    jobs = [name for name in (*BAD, *BAD, *["good"] * 10) if name != "huger.png"]

    def send(name):
        if name == "good":
            return bool(explained(server, encoded(scene(), "PNG"))["words"])
        content, words = BAD[name]
        return words in explained(server, content, name)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(send, jobs))


def test_clients_that_say_nothing_stop_nobody(server):
    address = urlsplit(server).hostname, urlsplit(server).port
    upload = b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
    upload += b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n"
    begun = [b"", b"GET / HTTP/1.1\r\nHost:", upload, upload + b'Content-Disposition: form-data; name="files"']
    idle = []
    for text in begun * 20:
        idle.append(socket.create_connection(address))
        idle[-1].sendall(text)
    start = time.monotonic()
    assert explained(server, encoded(scene(), "PNG"))["words"]
    assert time.monotonic() - start < 10
    for client in idle:
        client.close()


def test_half_an_upload_is_swept_away(server):
    """What a client leaves who goes away; the samples, and what is young, stay."""
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    path = Path(json.loads(posted(server, encoded(scene(), "PNG") + b"to be deleted")[1])[0])
    with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port)) as client:
        client.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n")
        client.sendall(b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n--edge\r\n")
        client.sendall(b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf')
        until = time.monotonic() + 10
        while not (half := [one for one in folder.glob("tmp*") if one.is_file()]) and time.monotonic() < until:
            time.sleep(0.01)
    assert half
    assert sweep(folder, 3600) == set()
    for one in (*half, path):
        os.utime(one, (time.time() - 3700,) * 2)
    assert sweep(folder, 3600, keep=[str(path)]) == {str(one) for one in half}
    assert path.exists()
    assert sweep(folder, 3600) == {str(path)}
    assert not path.parent.exists()
    assert sweep(folder / "nowhere") == set()


def guarded(guard, chunks, headers=()):
    """Status and text of a request whose body comes in pieces, each after some seconds; None: it ends there."""
    sent, pieces = [], iter(chunks)

    async def receive():
        wait, data = next(pieces, (60, b""))
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": data, "more_body": bool(data)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "query_string": b"", "headers": [*headers]}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


async def reading(scope, receive, send):
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


LENGTH = ((b"host", b"localhost"), (b"content-length", b"20"))


def test_a_request_has_to_arrive_in_time():
    guard = Guard(reading, seconds=0.3)
    assert guarded(guard, [(0, b"ab"), (0.05, b"c"), (0, b"")], LENGTH) == (200, b"abc")
    status, text = guarded(guard, [(0, b"ab"), (5, b"c"), (0, b"")], LENGTH)
    assert status == 408
    assert b"within 0.3 seconds" in text


def test_a_full_folder_takes_no_more(tmp_path):
    guard = Guard(reading, most_bytes=1000, folder=tmp_path)
    pieces = [(0, b"ab"), (0, b"")]
    (tmp_path / "one").write_bytes(bytes(99_000))
    assert guarded(guard, pieces, LENGTH) == (200, b"ab")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "half").write_bytes(bytes(990))
    status, text = guarded(guard, pieces, LENGTH)
    assert status == 503
    assert b"try again in an hour" in text


def test_the_server_tends_its_folder(tmp_path, monkeypatch):
    """Old uploads go, also from Gradio's own lists; the samples stay."""
    import gradio as gr

    import mmcam.demo

    class Over(Exception):
        pass

    turns = iter([None])

    def sleep(seconds):
        if next(turns, Over) is Over:
            raise Over

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(mmcam.demo.time, "sleep", sleep)
    old, sample, young = (tmp_path / name for name in ("old", "sample", "young"))
    for path in (old, sample, young):
        path.write_bytes(b"x")
    for path in (old, sample):
        os.utime(path, (time.time() - 3700,) * 2)
    with tidy(), Page() as page:
        part = gr.HTML()
    part.keep_in_cache.add(str(sample))
    page.upload_file_set.update(map(str, (old, young)))
    with pytest.raises(Over):
        mmcam.demo.tend(page)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "young"]
    assert page.upload_file_set == {str(young)}
