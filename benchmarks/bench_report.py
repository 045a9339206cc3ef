"""A page of thousands of pictures: its size, how long it takes to write and to open, and what the browser's tab takes.

    python -m benchmarks.bench_report
    python -m benchmarks.bench_report --pictures 500 --words 10 --out runs/bench/report.html

Pictures are smooth noise in colours that belong together, made so that their JPEGs are as large as photos' (11 kB at
224 pixels; four photos of scikit-image have 5 to 13); no two are the same. Maps of 14 x 14 are smooth blots. Writing
includes making both; how long that takes alone is told beside it. Chromium opens the file from the disk without
network, in a fresh window each time; it is open when the first page of pictures is drawn. The tab's memory is the
resident set of its process (Linux).
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.bench_engine import describe, machine
from benchmarks.resident import resident
from mmcam.explanation import Explanation
from mmcam.report import Shown, write

WIDTH, HEIGHT = 320, 240
BASES = 32
"""Pictures that are computed; all others are these, shifted and mirrored."""
VOCABULARY = 2000
NAMES = ("chromium", "chromium-browser", "google-chrome")
WORK = {
    "search a word": "byId('search').value = 'w17'; search();",
    "filter by score": "byId('search').value = ''; byId('low').value = '-5'; search();",
    "sort by score": "byId('low').value = ''; byId('sort').value = 'score'; search();",
    "turn the page": "byId('later').click();",
}


def bases(seed: int = 0) -> list[np.ndarray]:
    """Noise whose amplitudes fall with the frequency, height x width x 3, in bytes; brightness varies most."""
    generator = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    falling = np.maximum(np.hypot(down, across), 1 / WIDTH) ** -1.35
    found = []
    for _ in range(BASES):
        parts = []
        for amount in (55.0, 18.0, 18.0):
            noise = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((HEIGHT, WIDTH))) * falling, (HEIGHT, WIDTH))
            parts.append(amount * noise / noise.std())
        light, red, blue = parts
        pixels = 120 + np.stack([light + red, light - (red + blue) / 2, light + blue], 2)
        found.append(pixels.clip(0, 255).astype(np.uint8))
    return found


def pictures(count: int, words: int, seed: int = 0) -> Iterator[Shown]:
    """Make what is shown, one at a time."""
    known, generator = bases(seed), np.random.default_rng(seed)
    torch.manual_seed(seed)
    for number in range(count):
        turned = np.roll(known[number % BASES], (number // BASES * 7 % HEIGHT, number // BASES * 13 % WIDTH), (0, 1))
        image = Image.fromarray(np.ascontiguousarray(turned[:, ::-1] if number % 2 else turned))
        signed = F.interpolate(torch.randn(words, 1, 4, 4), (14, 14), mode="bicubic")[:, 0]
        said = tuple(f"w{word}" for word in generator.zipf(1.3, words) % VOCABULARY)
        scores = -torch.rand(words) * 10
        whole = (0.0, 0.0, float(HEIGHT), float(WIDTH))
        one = Explanation(f"picture-{number}", "", said, scores, signed, (HEIGHT, WIDTH), whole, "grad_cam", "layer4")
        yield Shown({"grad_cam": one}, image)


def opened(path: Path, repeats: int) -> dict[str, Any]:
    """Open the page in Chromium some times; seconds until it is drawn and of some work on it, and the tab's MiB."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise SystemExit(f"expected a browser, one of {', '.join(NAMES)}; found none")
    found: dict[str, Any] = {"open": [], "memory": [], **{name: [] for name in WORK}}
    with sync_playwright() as started:
        for _ in range(repeats):
            options = ["--disable-dev-shm-usage"] + ["--no-sandbox"] * (os.geteuid() == 0)
            browser = started.chromium.launch(executable_path=program, args=options)
            page = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True).new_page()
            page.set_default_timeout(600_000)
            start = time.perf_counter()
            page.goto(path.resolve().as_uri(), wait_until="commit")
            page.locator("#cards img").first.wait_for()
            page.evaluate("new Promise(drawn => requestAnimationFrame(() => setTimeout(drawn)))")
            found["open"].append(time.perf_counter() - start)
            for name, script in WORK.items():
                found[name].append(
                    page.evaluate(
                        f"() => {{ const start = performance.now(); {script} return performance.now() - start; }}"
                    )
                    / 1000
                )
            found["memory"].append(max(map(resident, _tabs())))
            browser.close()
    return found


def _tabs() -> list[int]:
    """Processes of Chromium that draw pages; the largest is the tab's."""
    processes = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"--type=renderer" in (folder / "cmdline").read_bytes():
                processes.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return processes


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, open it, print a table and write the figures beside the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--words", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="how often the page is opened")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/report.html"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.perf_counter()
    for _ in pictures(options.pictures, options.words):
        pass
    making = time.perf_counter() - start
    before = _peak()
    start = time.perf_counter()
    write(options.out, pictures(options.pictures, options.words), overwrite=True)
    writing = time.perf_counter() - start
    peak = _peak()
    seen = opened(options.out, options.repeats)
    rows = {
        "size of the file, MB": f"{options.out.stat().st_size / 1e6:.1f}",
        "written in, s": f"{writing:.1f}, of which {making:.1f} make the pictures and maps",
        "memory of writing above that of making, MiB": f"{peak - before:.0f}",
        "opened in, s": _spread(seen["open"]),
        "memory of the tab, MiB": f"{median(seen['memory']):.0f}",
        **{f"{name}, s": _spread(seen[name]) for name in WORK},
    }
    print(f"{options.pictures} pictures, {options.words} words each; {describe(machine('cpu'), 0)}\n")
    print("| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    options.out.with_suffix(".json").write_text(json.dumps(rows | {"opened": seen}, indent=1), encoding="utf-8")
    return 0


def _peak() -> float:
    """The highest resident set so far, in MiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
