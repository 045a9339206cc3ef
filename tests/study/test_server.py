"""The server end to end, by simulated people and by those who mean it harm."""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from mmcam.errors import UserError
from mmcam.study import Store, Study, serve
from mmcam.study.analysis import analyse
from tests.study.studies import person, serving


@pytest.fixture
def server(folder):
    with serving(folder) as server:
        yield server


def get(server, path):
    with urlopen(server.url + path, timeout=20) as reply:
        return reply.status, reply.headers, reply.read()


def post(server, path, content):
    data = json.dumps(content).encode()
    request = Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=20) as reply:
            return reply.status, json.loads(reply.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


def raw(server, text):
    """What comes back to bytes that no browser sends."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")


def test_simulated_people_answer_and_are_found_again(server, folder):
    """They know what the first method's maps are about, and guess what the second's are; their codes are by chance."""
    study, rng = Study.load(folder), random.Random(0)
    skill = {"grad_cam": 1.0, "hires_cam": 0.5}
    for _ in range(8):
        status, begun = post(server, "api/begin", {})
        assert (status, begun["answered"]) == (200, [])
        for number, answer in enumerate(person(study, begun["code"], skill, rng)):
            if number == 4:  # the page is opened again
                again = post(server, "api/begin", {"code": begun["code"]})[1]
                assert len(again["answered"]) == 4
            for name in study.by_id[answer.trial].pictures:
                status, headers, content = get(server, f"picture/{name}")
                assert (headers["Content-Type"], content[:2]) == ("image/jpeg", b"\xff\xd8")
            content = {"code": answer.code, "trial": answer.trial, "value": answer.value, "milliseconds": 1500}
            assert post(server, "api/answer", content) == (200, {"kept": True})
    with Store(folder, study) as store:
        found = analyse(study, store.answers())
    assert (found.people, found.complete) == (8, 8)
    assert {one.n for one in found.methods.values()} == {32}
    assert found.methods["grad_cam"].value == 1
    assert found.methods["grad_cam"].p < 0.05  # 2 of 256 throws of signs
    assert abs(found.methods["hires_cam"].value - 0.5) < 0.35  # four standard deviations


def test_people_at_once_are_not_mixed_up(server, folder):
    """Ten people, each of whom sends every answer twice, as an impatient connection does."""
    study, sent = Study.load(folder), {}

    def work(number):
        code = post(server, "api/begin", {})[1]["code"]
        sent[code] = {
            a.trial: a.value for a in person(study, code, {"grad_cam": 0.5, "hires_cam": 0.5}, random.Random(number))
        }
        for trial, value in sent[code].items():
            for _ in range(2):
                answer = {"code": code, "trial": trial, "value": value, "milliseconds": number}
                assert post(server, "api/answer", answer) == (200, {"kept": True})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 10
    kept = server.store.answers()
    assert len(kept) == 10 * study.length
    assert {(a.code, a.trial): a.value for a in kept} == {
        (c, t): v for c, some in sent.items() for t, v in some.items()
    }
    groups = [study.group(code) for code in sent]
    assert sorted(groups.count(group) for group in range(4)) == [2, 2, 3, 3]


def test_the_page_tells_no_key_and_may_do_little(server, folder):
    status, headers, content = get(server, "")
    page = content.decode()
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]
    assert "grad_cam" not in page
    assert '"key"' not in page
    assert "http://" not in page
    assert "https://" not in page


def test_no_path_comes_from_a_request(server, folder):
    for path in (
        "study.json",
        "answers.sqlite",
        "picture/../study.json",
        "picture/..%2fstudy.json",
        "picture/%2e%2e/study.json",
        "../study.json",
        "picture/",
        f"picture/{folder}/study.json",
        "picture//etc/passwd",
        "api/answer",
    ):
        head = raw(server, f"GET /{path} HTTP/1.1\r\nHost: localhost:{server.server_port}\r\nConnection: close\r\n\r\n")
        assert head.startswith("HTTP/1.1 404"), path
        assert "methods" not in head


def test_malicious_posts_change_nothing(server, folder):
    study = Study.load(folder)
    code = post(server, "api/begin", {})[1]["code"]
    trial = study.plan(code)[0]
    good = {"code": code, "trial": trial, "value": 1, "milliseconds": 5}
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    json_type = "Content-Type: application/json\r\n"
    body = json.dumps(good)
    for status, text in (
        (
            421,
            f"POST /api/answer HTTP/1.1\r\nHost: evil.example\r\n{json_type}Content-Length: {len(body)}\r\n\r\n{body}",
        ),
        (
            415,
            f"POST /api/answer HTTP/1.1\r\n{host}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}",
        ),
        (411, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}\r\n{body}"),
        (411, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: -5\r\n\r\n{body}"),
        (411, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: ²\r\n\r\n{body}"),
        (
            411,
            f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Transfer-Encoding: chunked\r\n\r\n5\r\n{{}}\r\n0\r\n\r\n",
        ),
        (413, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: 999999999999\r\n\r\n{body}"),
        (413, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: 5000\r\n\r\n{body}"),
        (400, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: 1000\r\n\r\n{body[:-1]}"),  # cut short
        (400, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: 4000\r\n\r\n{'[' * 4000}"),
        (400, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: 4\r\n\r\nnull"),
        (400, f"POST /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: 2\r\n\r\n\xff\xfe"),
        (404, f"POST /api/other HTTP/1.1\r\n{host}{json_type}Content-Length: {len(body)}\r\n\r\n{body}"),
        (501, f"PUT /api/answer HTTP/1.1\r\n{host}{json_type}Content-Length: {len(body)}\r\n\r\n{body}"),
    ):
        assert raw(server, text).startswith(f"HTTP/1.1 {status}"), text[:200]
    for status, wrong in (
        (404, good | {"code": "2222-2222"}),
        (404, good | {"code": ["x"]}),
        (404, {"trial": trial, "value": 1}),
        (400, good | {"value": 2}),
        (400, good | {"value": float("nan")}),
        (400, good | {"trial": "'; DROP TABLE answers; --"}),
        (400, good | {"name": "<script>"}),
        (400, good | {"trial": "x" * 3000}),
    ):
        assert post(server, "api/answer", wrong)[0] == status, wrong
    assert post(server, "api/begin", {"code": "2222-2222"})[0] == 404
    assert post(server, "api/begin", {"codes": 1})[0] == 400
    assert server.store.answers() == []
    assert post(server, "api/answer", good) == (200, {"kept": True})  # the server lives
    assert post(server, "api/answer", good) == (200, {"kept": True})
    assert post(server, "api/answer", good | {"value": 0})[0] == 409
    assert len(server.store.answers()) == 1


def test_a_refused_body_is_not_read_as_the_next_request(server):
    inner = f"GET / HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n"
    host = f"Host: localhost:{server.server_port}\r\n"
    for first in (
        f"GET / HTTP/1.1\r\n{host}Content-Length: {len(inner)}\r\n\r\n",
        f"POST /none HTTP/1.1\r\n{host}Content-Length: {len(inner)}\r\n\r\n",
        f"POST /api/begin HTTP/1.1\r\n{host}Content-Type: text/plain\r\nContent-Length: {len(inner)}\r\n\r\n",
    ):
        assert raw(server, first + inner).count("HTTP/1.1 ") == 1


def test_a_connection_is_kept_for_the_next_answer(server):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    for _ in range(3):
        connection.request("POST", "/api/begin", "{}", {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read())["answered"] == []
    connection.close()


def test_it_is_reached_from_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(UserError, match="expected a free one"):
        serve(server.store.study, server.store.path.parent, server.server_port)
    with pytest.raises(UserError, match="port 70000"):
        serve(server.store.study, server.store.path.parent, 70000)


def test_the_command_serves_until_it_is_interrupted(folder):
    command = [sys.executable, "-m", "mmcam", "study", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[0]
    request = Request(f"{url}api/begin", b"{}", {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as reply:
        code = json.loads(reply.read())["code"]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "mmcam study: interrupted\n")
    with Store(folder, Study.load(folder)) as store:
        assert store.answered(code) == []


def test_a_picture_that_is_missing_is_told(folder):
    next((folder / "pictures").iterdir()).unlink()
    with pytest.raises(UserError, match="it is missing; make the study again"):
        serve(Study.load(folder), folder, 0)
