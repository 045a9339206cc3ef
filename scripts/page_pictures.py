"""Take the pictures of README and docs from the real pages: the demo and a report, in Chromium.

python scripts/page_pictures.py    # writes docs/pictures/demo.jpg and docs/pictures/report.jpg

It needs the extras `demo`, `report` and `scenes`, Playwright and a Chromium (`make test-browser` installs both).
"""

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder (default: docs/pictures)")
    out = parser.parse_args().out
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(
            f"expected a browser, one of {', '.join(BROWSERS)}; `make test-browser` installs one on Debian"
        )
    with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        keep(of_demo(browser), out / "demo.jpg")
        keep(of_report(browser, Path(folder)), out / "report.jpg")
        browser.close()
    return 0


def of_demo(browser: Browser) -> bytes:
    """A caption's words, one of them chosen."""
    from mmcam.demo import SHIPPED, build, launch
    from mmcam.demo.served import serve

    page = build([serve(config, "cpu") for config in SHIPPED])
    try:
        window = opened(browser, launch(page), 1160, 1170)
        window.locator("#captioning-samples button").nth(3).click()
        window.locator("#captioning-figure img").wait_for()
        window.locator("#captioning-words label").last.click()
        window.locator('#captioning-figure img[alt*="bicycle"]').wait_for()
        window.wait_for_timeout(1000)  # Gradio fades its parts in
        return window.screenshot(animations="disabled")
    finally:
        page.close(verbose=False)


def of_report(browser: Browser, folder: Path) -> bytes:
    """A dump of captions, judged, with a word chosen."""
    dump = folder / "captions"
    data = ["--data", "scenes:test", "--data.init_args.seed=7"]
    mmcam("dump", "--config", "captioning/scenes", *data, "--limit", "40", "--out", dump, "--device", "cpu")
    mmcam("report", dump, "--out", folder / "report.html", "--title", "Captions of 40 scenes")
    window = opened(browser, (folder / "report.html").as_uri(), 1160, 800)
    for card in window.locator("#cards > li").all()[:4]:
        card.locator(".words button:has(.mark)").first.click()  # a word that names a thing
    return window.screenshot(animations="disabled")


def opened(browser: Browser, address: str, width: int, height: int) -> Page:
    """A page in a window of its own."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(120_000)
    page.goto(address)
    return page


def mmcam(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "mmcam.cli", *map(str, words)], check=True, cwd=ROOT)


def keep(png: bytes, file: Path) -> None:
    """Write a picture small; letters want colours of full size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(file, "JPEG", quality=85, subsampling=0, optimize=True)
    print(file, file.stat().st_size // 1000, "kB")


if __name__ == "__main__":
    sys.exit(main())
