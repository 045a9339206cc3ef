"""Debian's Chromium without a window, and pages that are watched: of the demo, the report and the study alike.

What a page asks for and complains about is noted and held against it when the test ends: no request may leave this
machine (loopback, or the disk), no script may fail, no dialogue may open. A test takes

    open_page(url, width=1200, scheme="light", …)   a page in a window of its own, gone to `url` ("" leaves it empty);
                                                    more options as of Playwright's `Browser.new_context`
    watched                                         what was noted; a test that provokes complaints says so by
                                                    `watched.excuse("413")`
    shoot(page, name)                               writes runs/screenshots/NAME.png, to be looked at
    fits(page)                                      whether nothing is wider than the window

Each file has `pytestmark = pytest.mark.browser`. Waiting is Playwright's (`expect(…)`, `wait_for`), never sleeping.

The browser is shared by the tests of a file and lives no longer: as long as Playwright is started it keeps an event
loop running, in which the tests of other files could not start theirs.
"""

import os
import shutil
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
HERE = ("file", "data", "blob", "about")
WAIT = 60_000  # milliseconds: machines of tests are slow and busy


@dataclass
class Watched:
    """What the pages of a test asked for and complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)

    def excuse(self, text):
        """Let complaints pass that hold this text."""
        self.excused.append(text)

    @property
    def elsewhere(self):
        """Requests for anything that is not on this machine."""
        return [url for url in self.requests if not _is_here(url)]

    @property
    def unexcused(self):
        """Complaints that no test provoked."""
        return [said for said in self.complaints if not any(text in said for text in self.excused)]


def _is_here(url):
    parts = urlsplit(url)
    if parts.scheme in HERE or parts.hostname == "localhost":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def chromium():
    """The program; a test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser, one of {', '.join(NAMES)}; `make test-browser` installs it on Debian")
    return found


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `dev`")
    program = chromium()
    # No name is ever looked up, whatever a page may try.
    options = ["--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium's sandbox refuses root
    playwright.expect.set_options(timeout=WAIT)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def watched():
    noted = Watched()
    yield noted
    assert noted.elsewhere == []
    assert noted.unexcused == []


@pytest.fixture
def open_page(browser, watched):
    contexts = []

    def opened(url="", width=1200, scheme="light", height=900, **options):
        window = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
        context = browser.new_context(**window, **options)
        contexts.append(context)
        context.set_default_timeout(WAIT)
        context.on("request", lambda request: watched.requests.append(request.url))
        context.on("weberror", lambda error: watched.complaints.append(str(error.error)))
        context.on("console", lambda said: said.type == "error" and watched.complaints.append(said.text))
        page = context.new_page()
        page.on("websocket", lambda socket: watched.requests.append(socket.url.replace("ws", "http", 1)))
        page.on("dialog", lambda dialog: (watched.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        if url:
            page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def shoot():
    def write(page, name, full_page=True, **options):
        path = SHOTS / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path, full_page=full_page, animations="disabled", **options)

    return write


@pytest.fixture(scope="session")
def fits():
    def narrower(page):
        return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    return narrower
