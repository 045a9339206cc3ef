"""Draw one caption, one question and one picture's classes under all methods, and set their figures beside them.

python scripts/reproduce.py table_captioning table_vqa table_classification --out runs/results
python scripts/methods_page.py --results runs/results/results.json --out docs

Writes OUT/methods.md and OUT/methods/{caption,question,classes}.png. The figures are those that the first command has
measured; without its file the page has pictures only.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import mmcam
from mmcam import draw
from mmcam.engine import explain_activations
from mmcam.errors import UserError
from mmcam.methods.table import names
from mmcam.scenes.draw import draw as draw_scene
from mmcam.scenes.language import captions
from mmcam.scenes.questions import questions
from mmcam.scenes.write import scenes
from mmcam.sheet import strip
from mmcam.task import Sample

LITTLE = ("a", "an", "of", "and", "the")
"""Words that are not drawn."""
GROUNDED = ("pointing", "discrimination", "mass", "best_iou")
FAITHFUL = ("deletion probability", "insertion probability", "occlusion")
COLUMNS = (*GROUNDED, *FAITHFUL)
"""The table's: grounding from the first table of an experiment, faithfulness from its third."""
TABLES = {"caption": "table_captioning", "question": "table_vqa", "classes": "table_classification"}

ABOUT = """\
# All methods

The same picture under every method, by name as in `mmcam explain --method NAME`, `mmcam dump --methods` and
`mmcam.explain(task, batch, method=NAME)`. Each map is scaled by its own maximum. What each method computes is in
[equations.md](equations.md), where it differs from its paper in [differences.md](differences.md); both follow the
docstrings.

```sh
mmcam explain photo.jpg --method hires_cam --out runs/hires
mmcam dump --config captioning/scenes --data scenes:test --limit 8 --methods grad_cam,hires_cam --out runs/methods
```

Methods of attention want a transformer, which the embedded models are not: how they do on two small ones is in
[huggingface.md](huggingface.md#methods).

The tables are excerpts of [results.md](results.md), which tells the conditions: embedded models on fresh scenes, few
pictures, wide intervals. A number with a star is the best of its column among the methods.

Next: [your own model](bring_your_own.md), [its maps held against the truth](evaluation.md), or [as a page](report.md).
"""


def main() -> int:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("runs/results/results.json"), help="of reproduce.py")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of methods.md and methods/")
    parser.add_argument("--seed", type=int, default=2027, help="of the scene")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(arguments.results.read_text(encoding="utf-8")) if arguments.results.is_file() else []
    results = {done["name"]: done["tables"] for done in found if done["tables"]}
    (arguments.out / "methods").mkdir(parents=True, exist_ok=True)
    scene, question = next(
        (scene, question)
        for scene in scenes(arguments.seed, "test", 100)
        for question in questions(scene, 12)
        if question.form == "what" and len(scene.things) == 3
    )
    picture = draw_scene(scene)[0]
    kinds = ", ".join(dict.fromkeys(thing.kind for thing in scene.things))
    jobs = {
        "caption": ("captioning/scenes", "", captions(scene, 1)[0].text),
        "question": ("vqa/scenes", question.text, question.answer),
        "classes": ("classification/scenes", "", kinds),
    }
    lines = [ABOUT]
    for name, (config, asked, said) in jobs.items():
        sheet(picture, config, asked, said).save(arguments.out / "methods" / f"{name}.png", optimize=True)
        lines += [f"## A {name}\n" if name != "classes" else "## Classes\n"]
        lines += [f"`{config}`: {f'“{asked}” ' if asked else ''}“{said}”\n"]
        lines += [f"![The same {name} under all methods](methods/{name}.png)\n", table(results.get(TABLES[name], []))]
    (arguments.out / "methods.md").write_text("\n".join(lines), encoding="utf-8")
    print(arguments.out / "methods.md")
    return 0


def sheet(picture: Image.Image, config: str, question: str, text: str) -> Image.Image:
    """One strip a method, one under the other."""
    task = mmcam.load_task(config, device="cpu")
    batch = task.collate([Sample(picture, "scene", question)])
    with torch.no_grad():
        activations, targets = task.trunk(batch), task.given([text], batch)
    strips = []
    for name in names():
        try:
            (explanation,) = explain_activations(task, activations, batch, targets, name)
        except UserError:  # a method that this model has no use for
            continue
        maps = draw.scale(explanation.upsample(), "own")
        rows = zip(explanation.words, explanation.flags, maps, strict=True)
        panels = [(word, flag, row) for word, flag, row in rows if word not in LITTLE]
        strips.append(strip(picture, panels[:5], width_per_panel=112, first=name.replace("_", " ")))
    width, height = max(one.width for one in strips), strips[0].height
    # Two columns of strips: one would be many screens long.
    rows = math.ceil(len(strips) / 2)
    whole = Image.new("RGB", (2 * width, rows * height), "white")
    for place, one in enumerate(strips):
        whole.paste(one, (place // rows * width, place % rows * height))
    return whole.quantize(128)


def table(tables: list[dict[str, Any]]) -> str:
    """The figures of all methods and baselines, the best of the methods marked."""
    if not tables:
        return "Not measured here.\n"
    rows: dict[str, dict[str, float]] = {}
    for one in tables:
        for row, cells in one["rows"].items():
            for column, cell in cells.items():
                if column in COLUMNS and isinstance(cell, dict) and cell["value"] is not None:
                    rows.setdefault(row, {})[column] = cell["value"]
    columns = [column for column in COLUMNS if any(column in cells for cells in rows.values())]
    methods = [row for row in rows if row in names()]
    best = {c: sorted((rows[m][c] for m in methods if c in rows[m]), reverse="deletion" not in c)[0] for c in columns}
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row, cells in rows.items():
        marks = ["*" if row in methods and cells.get(c) == best[c] else "" for c in columns]
        texts = [f"{cells[c]:.3f}{mark}" if c in cells else "" for c, mark in zip(columns, marks, strict=True)]
        lines.append(f"| {row} | {' | '.join(texts)} |")
    conditions = tables[0]["conditions"]
    counts = [next(iter(next(iter(one["rows"].values())).values()))["n"] for one in (tables[0], tables[2])]
    lines.append(
        f"\n<sub>{counts[0]} maps, {counts[1]} for what asks the model; weights {conditions['weights'][:12]}, "
    )
    lines.append(f"layer {conditions['layer']}, seed {conditions['seed']}, torch {conditions['torch']}</sub>\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
