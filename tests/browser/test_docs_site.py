"""The documentation's site in a browser: navigation, search, small screens; nothing is asked of another host."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs the extra `docs`")
pytest.importorskip("furo", reason="needs the extra `docs`")

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SITE = ROOT / "runs" / "docs"
PAGES = ("index", "start", "equations", "metrics", "api", "results")


@pytest.fixture(scope="module")
def site():
    """Its address on the disk; built as by `make docs`, where a page is newer than the site."""
    sources = [*(ROOT / "docs").glob("*.*"), *(ROOT / "docs" / "_static").iterdir()]
    built = SITE / "searchindex.js"
    if not built.is_file() or built.stat().st_mtime < max(file.stat().st_mtime for file in sources):
        words = ["-q", "-W", "--keep-going", "-b", "html", "-d", "runs/docs-cache", "docs", "runs/docs"]
        done = subprocess.run([sys.executable, "-m", "sphinx", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return SITE.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1300, "dark"), (400, "light")])
def test_pages_fit_and_have_their_pictures(site, open_page, fits, shoot, width, scheme):
    page = open_page(width=width, scheme=scheme)
    for name in PAGES:
        page.goto(f"{site}/{name}.html")
        assert fits(page), name
        broken = "[...document.images].filter(one => one.complete && one.naturalWidth === 0).map(one => one.src)"
        assert page.evaluate(broken) == []
        shoot(page, f"docs/{name}-{width}", full_page=False)


def test_the_navigation_leads_through_the_pages(site, open_page):
    page = open_page(f"{site}/index.html")
    for link, file in (("Three tasks", "tasks"), ("Metrics", "metrics"), ("The demo", "demo")):
        page.locator(".sidebar-tree").get_by_role("link", name=link, exact=True).click()
        page.wait_for_url(f"**/{file}.html")
        assert page.locator("h1").first.inner_text().startswith(link)


def test_the_search_finds_a_page(site, open_page, watched):
    watched.excuse("blocked by CORS policy")  # excerpts of pages, which a browser does not fetch from the disk
    watched.excuse("Failed to ")
    page = open_page(f"{site}/index.html")
    page.locator(".sidebar-search").fill("bootstrap")
    page.locator(".sidebar-search").press("Enter")
    page.locator("#search-results a", has_text="Metrics").first.wait_for()
