"""Go over torchvision's and timm's classifiers: which layer is found, whether maps come out of it, and write the page.

python scripts/classifiers_page.py                       the missing models, then docs/classifiers.md
python scripts/classifiers_page.py --only deit --again   these names anew
python scripts/classifiers_page.py --page                the page alone

All of torchvision, and of timm the smallest model of every kind: the same module, class and first word of the name,
and the same of the words that change what is explained (distilled, registers, no class token …). One line of JSON a
model in runs/classifiers.jsonl, so that it can be stopped at any time. Weights are random: nothing is downloaded.
"""

import argparse
import gc
import json
import logging
import re
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from scripts.classifiers_tried import LARGEST, attempt, chosen, side, sizes

logger = logging.getLogger("classifiers")

ABOUT = """\
# Classifiers

Every classifier of torchvision and timm can be explained by its name, without a line of code:

```yaml
# my.yaml
task:
  class_path: classification.ClassificationTask
  init_args: {{model: timm/vit_tiny_patch16_224, weights: DEFAULT}}
```

```sh
mmcam explain photo.jpg --config my.yaml --out runs/class
```

The explained layer is found: the last one that runs once, gives maps or tokens on a grid of the picture's aspect, and
on whose places the output depends. One forward and one backward pass of noise tell that, whatever the model. So it is

- of a CNN the last maps before pooling. VGG's are after its last max pooling (7 x 7); `layer: features.29` is the
  14 x 14 of the Grad-CAM paper (`classification/vgg16`). DenseNet's are before the ReLU that its forward applies.
  SqueezeNet's are the maps of the classes, averaged afterwards.
- of a vision transformer that is read at its class token the norm before the last attention: what comes after it at
  the other tokens changes nothing, so maps of the last block would be zero.
- of one that averages its tokens, or pools them by attention, the last norm, or the last block where the norm comes
  after.
- where a class token comes late and reads several times (CaiT, XCiT, VOLO), the last layer before it.
- of several branches (CrossViT, CoaT) one, the coarsest; what the others see is not in its map.

Passed over are parts of attention modules, pooling to a size of its own, and what only hands its input on (identity,
dropout). Tokens that lie on no grid of the network are no places (the states of EfficientViM).

## Another layer

`mmcam layers` lists the layers with the shapes of their outputs and says why the others cannot be explained; `--all`
shows every one in order.

```sh
mmcam layers --model resnet18
mmcam layers --config my.yaml
mmcam explain photo.jpg --config my.yaml --layer blocks.8 --out runs/earlier
```

![The map of a boat at four layers of the embedded classifier: edges first, the thing last](pictures/layers.png)

The same of the embedded classifier, whose weights are here (the picture is `scripts/docs_pictures.py`'s):

```python
import mmcam
from mmcam.scenes.source import Scenes

sample = Scenes(count=1, seed=7).sample(0)
for layer in ("features.2", "features.6", "features.12", "features"):
    task = mmcam.load_task("classification/scenes", layer=layer, device="cpu")
    batch = task.collate([sample])
    (explanation,) = mmcam.explain(task, batch, task.given(["boat"], batch))
    print(layer, tuple(explanation.maps.shape[1:]), explanation.peaks())
```

In the configuration it is `layer: blocks.8` beside `model`, in Python `ClassificationTask("resnet50", layer="layer3")`.
`prefix` says how many tokens come before the grid, if a model of your own has some (class token, registers); without it
the smallest number is taken that leaves a grid. `size` is for other inputs than the model's own.

## What was tried

Random weights, one picture, one thread, by `scripts/classifiers_page.py`; timm {timm}, torchvision {torchvision},
torch {torch}. Weights need not be downloaded to use these names; with `weights: DEFAULT` they are.

{counts}

Of every model the layer was found, the network was cut there (both halves are proven to be the model, see
`mmcam.networks.split`), one class was explained with Grad-CAM, and it was checked that the score depends on
{seen}of the places, and that the corners of the maps see the corners of the picture. Large models had smaller inputs
where they take them; the size stands behind the grid.
"""


def main() -> int:
    """Try the models and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=str, default="", help="a regular expression on names")
    parser.add_argument("--again", action="store_true", help="also those that are done")
    parser.add_argument("--all", action="store_true", help="every model of timm that is small enough")
    parser.add_argument("--page", action="store_true", help="try nothing")
    parser.add_argument("--lines", type=Path, default=Path("runs/classifiers.jsonl"), help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/classifiers.md"), help="(default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    torch.set_num_threads(1)
    arguments.lines.parent.mkdir(parents=True, exist_ok=True)
    models = sizes(arguments.lines.with_suffix(".sizes.json"))
    if not arguments.page:
        done = set() if arguments.again else read(arguments.lines).keys()
        families = {models[name]["family"] for name in done}
        wanted = [name for name in (models if arguments.all else chosen(models)) if re.search(arguments.only, name)]
        # New families first, since most is learnt from them.
        for name in sorted(wanted, key=lambda x: (models[x]["family"] in families, models[x]["parameters"])):
            if name not in done and models[name]["parameters"] <= LARGEST:
                line = attempt(name, side(name, models[name]["parameters"])) | models[name]
                with arguments.lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                logger.info("%s: %s", name, line.get("refused") or f"{line['layer']} {line['grid']}")
                gc.collect()
    arguments.out.write_text(page(models, read(arguments.lines)), encoding="utf-8")
    logger.info("%s", arguments.out)
    return 0


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What is known of each model; of one that was tried several times, the last."""
    if not path.is_file():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["name"]: line for line in lines}


def page(models: dict[str, dict[str, Any]], lines: dict[str, dict[str, Any]]) -> str:
    """The page: what was found for every family, and what was refused."""
    import timm
    import torchvision

    parts = {"torchvision": False, "timm": True}
    counts, tables = [], []
    for library, prefixed in parts.items():
        names = [name for name in models if name.startswith("timm/") == prefixed]
        names = [name for name in names if models[name]["classes"]]
        tried = [lines[name] for name in names if name in lines]
        good = [line for line in tried if "refused" not in line]
        families = {models[name]["family"] for name in names}
        covered = {models[line["name"]]["family"] for line in tried}
        missing = sorted({models[n]["family"] for n in names} - covered)
        counts.append(
            f"- {library}: {len(good)} of {len(tried)} models work, {len(covered)} of {len(families)} families; "
            f"it has {len(names)} models." + (f" Not tried: {', '.join(missing)}." if missing else "")
        )
        tables.append(f"### {library}\n\n{_families(good)}\n")
        bad = [line for line in tried if "refused" in line]
        if bad:
            rows = "\n".join(f"| `{line['name']}` | {line['refused']} |" for line in bad)
            tables.append(f"Refused:\n\n| model | why |\n|---|---|\n{rows}\n")
    counts.append(
        "Of timm the smallest model of every kind was tried: the others of a family are the same code, deeper or "
        f"wider. Models of more than {LARGEST // 1_000_000} million parameters were not."
    )
    counts.append(
        f"timm's other {sum(not model['classes'] for model in models.values())} models are encoders without classes, "
        "which is said when one is named; with `num_classes` and a state dict they have some."
    )
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__, "torch": torch.__version__}
    partly = [line["name"] for line in lines.values() if line.get("seen", 1.0) < 1.0]
    seen = f"all (of {', '.join(partly)}: some) " if partly else "all "
    plain = {library: version.partition("+")[0] for library, version in versions.items()}
    counts = [*counts[:2], "\n" + textwrap.fill(" ".join(counts[2:]), 140)]
    head = ABOUT.format(counts="\n".join(counts), seen=seen, **plain)
    note = (
        "† Untrained, all places of these see nearly all of the picture, so that it could not be told which place sees "
        "what.\n"
    )
    return "\n".join([head, *tables, note])


def _families(lines: list[dict[str, Any]]) -> str:
    """One row for those of a family that are alike."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        pattern = re.sub(r"[0-9]+", "0", line["layer"])
        groups[line["family"], pattern, line["kind"], line["prefix"]].append(line)
    rows = []
    for (family, _, kind, prefix), group in sorted(groups.items(), key=lambda item: item[0][0]):
        group.sort(key=lambda line: line["parameters"])
        names = ", ".join(f"`{line['name']}`{'' if line['placed'] > 0.7 else ' †'}" for line in group)
        first = group[0]
        layers = list(dict.fromkeys(line["layer"] for line in group))
        layer = ", ".join(f"`{layer}`" for layer in layers[:3]) + (" …" if len(layers) > 3 else "")
        grid = f"{first['grid'][0]} x {first['grid'][1]} of {first['size'][0]} x {first['size'][1]}"
        laid = f"tokens, {prefix} before" if prefix else kind
        rows.append(f"| {family} | {names} | {layer} | {laid} | {grid} | {first['found in']:.1f} |")
    header = (
        "| family | models | layer | layout | grid (of the first) | made and found in s |\n|---|---|---|---|---|---:|"
    )
    return "\n".join([header, *rows])


if __name__ == "__main__":
    sys.exit(main())
