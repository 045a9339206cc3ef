"""Take the picture of docs/study.md from the real pages: a question of discrimination beside one of trust, in Chromium.

python scripts/study_picture.py    # writes docs/pictures/study.png

It needs what scripts/page_pictures.py needs.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from page_pictures import BROWSERS, ROOT, mmcam, opened
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

OUT = ROOT / "docs" / "pictures" / "study.png"
WIDTH, HEIGHT, GAP = 560, 700, 24
COLOURS = 256  # a palette makes a third of the bytes
SCENES = ("--data", "scenes:test", "--limit", "80")


def main() -> int:
    """Make both studies as the page says, and take their pictures."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise SystemExit(
            f"expected a browser, one of {', '.join(BROWSERS)}; `make test-browser` installs one on Debian"
        )
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        classes, show, attend = (Path(folder) / name for name in ("classes", "show", "attend"))
        mmcam("dump", "--config", "classification/scenes", *SCENES, "--targets", "given", "--out", classes)
        mmcam("dump", "--config", "captioning/show_and_tell", *SCENES, "--out", show)
        mmcam("dump", "--config", "captioning/scenes", *SCENES, "--out", attend)
        shots = [asked(browser, Path(folder) / "discrimination", classes)]
        shots.append(asked(browser, Path(folder) / "trust", show, attend))
        browser.close()
    both = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), "#d0d0d0")
    for number, shot in enumerate(shots):
        with Image.open(io.BytesIO(shot)) as picture:
            both.paste(picture, (number * (WIDTH + GAP), 0))
    both.quantize(COLOURS, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(OUT, OUT.stat().st_size // 1000, "kB")
    return 0


def asked(browser: Browser, folder: Path, *dumps: Path) -> bytes:
    """The second question of a study, where one is in the middle of it."""
    mmcam("study", "make", *dumps, "--kind", folder.name, "--trials", "12", "--checks", "0", "--out", folder)
    mmcam("study", "export", folder, "--out", folder / "page.html")
    page = opened(browser, (folder / "page.html").as_uri(), WIDTH, HEIGHT)
    # Everybody gets a code by chance; here always the same one.
    page.evaluate("void (crypto.getRandomValues = (bytes) => bytes.fill(7))")
    page.check("#agree")
    page.click("#begin")
    for number in range(5):
        page.get_by_text(f"{number + 1} of 12").wait_for()
        page.locator("#choices button:enabled, #scale").first.wait_for()
        page.wait_for_function("[...document.querySelectorAll('#pictures img')].every((image) => image.complete)")
        if number < 4:
            page.wait_for_timeout(600)  # between two answers the page rests
            page.keyboard.press("2")
            page.keyboard.press("Enter")
    if page.locator("#scale").count():
        page.wait_for_timeout(600)
        page.keyboard.press("4")
    return page.screenshot(animations="disabled")


if __name__ == "__main__":
    sys.exit(main())
