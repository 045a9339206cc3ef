"""The running page, by HTTP: what it serves, what it refuses, and that it outlives every upload."""

import base64
import io
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import mmcam
from mmcam.demo.looks import look
from mmcam.demo.samples import samples
from tests.demo.serving import ask, tidy

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and its client's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def client(server, folder):
    return Client(server, verbose=False, analytics_enabled=False, download_files=str(folder / "got"))


def saved(folder, number):
    path = folder / f"scene{number}.png"
    samples()[number].picture.save(path)
    return handle_file(path)


def explain(client, picture, model="captioning/scenes", question="", text="", method="", layer=""):
    return client.predict(picture, model, question, text, method, layer, api_name="/explain")


def test_explain_is_what_the_library_says(client, folder):
    record, strip = explain(client, saved(folder, 2))
    expected = mmcam.explain_image(samples()[2].picture, device="cpu")
    assert record["words"] == list(expected.words)
    np.testing.assert_allclose(record["scores"], expected.scores, rtol=1e-4)
    np.testing.assert_allclose(record["maps"], expected.maps, atol=1e-4)
    assert record["size"] == [96, 96]
    assert Image.open(strip).width > 3 * 224


def test_a_session_keeps_its_picture_and_words_come_without_it(server, client, folder, served):
    other = Client(server, verbose=False, analytics_enabled=False)
    for one, number in ((client, 2), (other, 1)):
        one.predict(saved(folder, number), "", "", "grad_cam", None, "jet", 0.5, "own", api_name="/captioning_show")
    for one, number in ((client, 2), (other, 1)):
        words = look(served["captioning"], samples()[number].picture).words
        figure = one.predict([1], False, "jet", 0.5, "own", api_name="/captioning_word")[1]
        assert f"<b>{words[1]}</b>" in figure
        both = one.predict([0, 1], "jet", 0.5, "own", api_name="/captioning_phrase")[1]
        assert f"<b>{words[0]} {words[1]}</b>" in both
        assert f"for “{words[0]} {words[1]}”" in both  # the text for those who do not see it


def test_files_to_keep(client, folder):
    client.predict(saved(folder, 2), "", "", "grad_cam", None, "jet", 0.5, "own", api_name="/captioning_show")
    page = client.predict("jet", 0.5, "own", api_name="/captioning_files")
    found = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page))
    contents = {name: base64.b64decode(text) for name, text in found.items()}
    assert set(contents) == {"strip.png", "maps.npz", "words.json"}
    record = json.loads(contents["words.json"])
    with np.load(io.BytesIO(contents["maps.npz"]), allow_pickle=False) as maps:
        assert maps["words"].tolist() == record["words"]
        assert maps["maps"].shape[0] == len(record["words"])
        assert (maps["maps"] == np.maximum(maps["signed"], 0)).all()
    assert Image.open(io.BytesIO(contents["strip.png"])).mode == "RGB"


def test_eight_users_at_once_get_what_they_would_get_alone(server, folder, served):
    """Each has a session and a picture of its own; every answer is that picture's."""
    pictures = [saved(folder, number) for number in range(8)]
    alone = [look(served["captioning"], samples()[number].picture) for number in range(8)]

    def user(number):
        own = Client(server, verbose=False, analytics_enabled=False)
        shown = own.predict(pictures[number], "", "", "grad_cam", None, "jet", 0.5, "own", api_name="/captioning_show")
        words = [word for word, _ in shown[0]["choices"]]
        figures = [
            own.predict([row], False, "jet", 0.5, "own", api_name="/captioning_word")[1] for row in range(len(words))
        ]
        return words, [re.search(r"score (-?[\d.]+)", figure).group(1) for figure in figures]

    with ThreadPoolExecutor(8) as pool:
        for (words, scores), expected in zip(pool.map(user, range(8)), alone, strict=True):
            assert words == list(expected.words)
            assert scores == [f"{score:.2f}" for score in expected.explanation.scores.tolist()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"text": "a zebro"}, "zebra"),
        ({"model": "captioning/scene"}, "captioning/scenes"),
        ({"model": "/etc/passwd"}, "unknown model"),
        ({"model": "vqa/scenes"}, "question"),
        ({"layer": "../.."}, "unknown layer"),
        ({"method": "x" * 9}, "unknown method"),
    ],
)
def test_mistakes_are_answered_in_words(client, folder, arguments, words):
    with pytest.raises(AppError, match=words):
        explain(client, saved(folder, 0), **arguments)


def test_no_path_of_the_server_can_be_read(server, client, folder):
    for path in ("/etc/passwd", "/proc/self/environ", str(mmcam.__file__), "pyproject.toml", "../../etc/passwd"):
        for route in ("/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/stream/"):
            status, _, data = ask(server, route + path)
            assert status in (403, 404, 405, 422), (route, path, status)
            assert b"root:" not in data
    for path in ("/etc/passwd", str(mmcam.__file__)):
        with pytest.raises(AppError):
            explain(client, {"path": path, "meta": {"_type": "gradio.FileData"}})


def test_the_server_fetches_nothing_for_a_client(server, client):
    """Neither by an address in the place of an upload nor by Gradio's own routes; not even from this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.3)
    here = f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
    came = []

    def accept():
        try:
            came.append(listening.accept())
        except TimeoutError:
            return

    for address in (here, here.upper(), f" {here}", "http://93.184.215.14/a.png"):
        data = {"path": address, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [data, "", "", "", "", ""], "session_hash": "s"}).encode()
        waiting = threading.Thread(target=accept)
        waiting.start()
        _, _, answer = ask(
            server, "/gradio_api/call/explain", method="POST", body=body, headers={"Content-Type": "application/json"}
        )
        event = json.loads(answer)["event_id"]
        assert b"event: error" in ask(server, f"/gradio_api/call/explain/{event}")[2]
        waiting.join()
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/gradio_api/file=%68ttp"):
        status, _, _ = ask(server, route + (here if "%" not in route else here.removeprefix("http")))
        assert status == 403, route
    for route in ("/monitoring", "/gradio_api/vibe-code", "/gradio_api/component_server", "/gradio_api/dev/reload"):
        assert ask(server, route)[0] == 403, route
    listening.close()
    assert not came


def test_there_is_no_fetching_by_url_unless_asked_for(server):
    config = json.loads(ask(server, "/config")[2])
    names = [function["api_name"] for function in config["dependencies"]]
    assert not any(str(name).endswith("_url") for name in names)
    assert not any("on the web" in str(part["props"].get("label")) for part in config["components"])


def test_other_names_of_this_machine_are_refused(server):
    """A page elsewhere may let its own name point here (DNS rebinding)."""
    port = urlsplit(server).port
    for host, status in (
        ("evil.example", 421),
        (f"evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        (f"localhost:{port}", 200),
        ("127.0.0.1", 200),
    ):
        assert ask(server, "/config", host=host)[0] == status, host


def test_nothing_is_loaded_from_elsewhere(server):
    """No script, style, font or picture of the page names another host, and browsers are told to refuse any."""
    status, headers, data = ask(server, "/")
    page = data.decode()
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy
    tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*>", page)
    assert tags
    assert not [tag for tag in tags if re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", tag)]
    assert "fonts.g" not in page
    theme = ask(server, "/theme.css")[2].decode()
    assert "@import" not in theme
    assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//", theme)
    config = json.loads(ask(server, "/config")[2])
    assert config["analytics_enabled"] is False
    assert not [sheet for sheet in config.get("stylesheets") or [] if "//" in sheet]


def test_it_listens_to_loopback_alone(server):
    port = urlsplit(server).port
    assert urlsplit(server).hostname == "127.0.0.1"
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        if address.startswith("127."):
            continue
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((address, port)) != 0


def test_the_interface_is_documented_by_the_server_too(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(named) == ["/explain"]
    assert [p["parameter_name"] for p in named["/explain"]["parameters"]] == [
        "picture",
        "model",
        "question",
        "text",
        "method",
        "layer",
    ]


def test_fetching_when_asked_for_refuses_this_machine(served, server):
    """The page of `--allow-urls` has the function, and it stands behind the checks."""
    import gradio as gr

    from mmcam.demo import build
    from mmcam.demo.clicks import Clicks

    with tidy():
        page = build([served["captioning"]], allow_urls=True)
    assert "captioning_url" in [function.api_name for function in page.fns.values()]
    own = Clicks(served["captioning"], "captioning", 1000, 1000)
    for url in (f"{server}config", "http://169.254.169.254/", "file:///etc/passwd", "http://localhost/"):
        with pytest.raises(gr.Error, match="expected"):
            own.from_web(url)


def test_what_is_served_is_limited(served):
    """Waiting requests, users and the age of uploads."""
    from mmcam.demo import WAITING, build
    from mmcam.demo.memory import UNREAD

    with tidy():
        page = build([served["captioning"]])
    assert page._queue.max_size == WAITING
    assert page._queue.pending_messages_per_session.max_size == UNREAD
    assert page._queue.ANALYTICS_MAX_EVENTS == 1
    assert page.delete_cache is None  # `tend` does it
    assert page.analytics_enabled is False
    limits = {str(function.api_name): function.concurrency_limit for function in page.fns.values() if function.queue}
    assert all(limit in (1, 2, "default") for limit in limits.values()), limits
