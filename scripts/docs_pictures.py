"""Draw the pictures of the documentation's pages, with the embedded models on fresh scenes.

python scripts/docs_pictures.py --out docs/pictures

Writes OUT/{caption,question,class}.png (docs/start.md, docs/tasks.md: the scene of `make demo`), truth.png
(docs/data.md), layers.png (docs/classifiers.md), captioners.png (docs/models.md) and heard.png (docs/words.md). What is
drawn in the web pages comes from their own screenshots; docs/methods and docs/results have scripts of their own.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import max_pool2d

import mmcam
from captioning.data import CaptionedScenes
from mmcam import draw, sheet
from mmcam.explanation import Explanation
from mmcam.heard import with_words
from mmcam.scenes.draw import draw as draw_scene
from mmcam.scenes.questions import questions
from mmcam.scenes.source import Scenes
from mmcam.scenes.write import scenes
from mmcam.task import Sample

PANEL, COLOURS, MOST = 168, (160, 112, 80, 64), 60_000
"""Pixels a panel; colours of a picture, as many as fit into so many bytes."""
LAYERS = ("features.2", "features.6", "features.12", "features")
INK = (230, 40, 40), (40, 90, 230), (20, 150, 70), (170, 60, 190)


def main() -> int:
    """Draw all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PICTURES)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or PICTURES:
        path = arguments.out / f"{name}.png"
        picture = PICTURES[name]().convert("RGB")
        for colours in COLOURS:
            picture.quantize(colours).save(path, optimize=True)
            if path.stat().st_size <= MOST:
                break
        print(path, path.stat().st_size // 1000, "kB")
    return 0


def demo_scene(seed: int = 2027) -> tuple[Image.Image, str, str]:
    """The scene of `make demo`, its question, and its kinds."""
    scene, question = next(
        (scene, question)
        for scene in scenes(seed, "test", 100)
        for question in questions(scene, 12)
        if question.form == "what" and len(scene.things) == 3
    )
    return draw_scene(scene)[0], question.text, ", ".join(dict.fromkeys(thing.kind for thing in scene.things))


def explained(config: str, image: Image.Image, question: str = "", given: str = "", layer: str = "") -> Explanation:
    """What a shipped model says of a picture, or what is given; of questions with the words heard."""
    options = {"layer": layer} if layer else {}
    task = mmcam.load_task(config, device="cpu", **options)
    batch = task.collate([Sample(image, "scene", question)])
    with torch.no_grad():
        activations = task.trunk(batch)
        targets = task.given([given], batch) if given else task.predict(activations, batch)
    explanations = mmcam.explain(task, batch, targets)
    if question:
        explanations = with_words(explanations, task, activations, batch, targets)
    return explanations[0]


def drawn(one: Explanation, image: Image.Image, first: str = "", width: int = PANEL) -> Image.Image:
    """The strip, smaller than `Explanation.overlay` draws it."""
    maps = draw.scale(one.upsample(), "own")
    panels = [
        (word, f"{score:.2f}", row) for word, score, row in zip(one.words, one.scores.tolist(), maps, strict=True)
    ]
    return sheet.strip(image, panels, width, first=first or one.prompt or " ".join(one.words))


def caption() -> Image.Image:
    """Every word of the model's own caption."""
    image, _, _ = demo_scene()
    return drawn(explained("captioning/scenes", image), image)


def question() -> Image.Image:
    """The answer to a question."""
    image, text, _ = demo_scene()
    return drawn(explained("vqa/scenes", image, text), image)


def classes() -> Image.Image:
    """All kinds that are in the scene."""
    image, _, kinds = demo_scene()
    return drawn(explained("classification/scenes", image, given=kinds), image, kinds)


def truth(count: int = 4, side: int = 224) -> Image.Image:
    """What is known of scenes: the caption, and of each word that names a thing its outline and box."""
    known = CaptionedScenes(seed=7)
    whole = Image.new("RGB", (count * (side + 8) - 8, side + 46), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(15)
    for number in range(count):
        image, things, (text,) = known.sample(number).image, known.things(number), known.given(number)
        left, times = number * (side + 8), side / image.width
        masks = things.masks.float()
        whole.paste(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), (left, 22))
        pen.text((left + side / 2, 2), text, (20, 20, 20), font, anchor="ma")
        for thing, ink in zip(range(len(things)), INK, strict=False):
            mask = draw.resize(masks[thing : thing + 1], (side, side)) > 0.5
            inner = -max_pool2d(-mask.float(), 5, 1, 2) > 0
            edge = (mask & ~inner)[0].to(torch.uint8) * 255
            whole.paste(ink, (left, 22), Image.fromarray(edge.numpy()))
            box = [float(edge) * times for edge in things.boxes[thing]]
            pen.rectangle((left + box[0], 22 + box[1], left + box[2] - 1, 22 + box[3] - 1), outline=ink, width=2)
            place = left + side * (thing + 0.5) / len(things)
            pen.text((place, side + 26), things.names[thing], ink, font, anchor="ma")
    return whole


def layers() -> Image.Image:
    """One class at several layers."""
    image = Scenes(count=1, seed=7).sample(0).image
    panels = []
    for layer in LAYERS:
        one = explained("classification/scenes", image, given="boat", layer=layer)
        height, width = one.maps.shape[1:]
        panels.append((layer, f"{height} x {width}", draw.scale(one.upsample(), "own")[0]))
    return sheet.strip(image, panels, width_per_panel=PANEL, first="boat")


def captioners() -> Image.Image:
    """Both captioners on one scene."""
    image = Scenes(count=4, seed=7).sample(3).image
    strips = [drawn(explained(f"captioning/{name}", image), image) for name in ("scenes", "show_and_tell")]
    whole = Image.new("RGB", (max(one.width for one in strips), sum(one.height for one in strips)), "white")
    whole.paste(strips[0])
    whole.paste(strips[1], (0, strips[0].height))
    return whole


def heard() -> Image.Image:
    """An answer with the words of its question."""
    image, text, _ = demo_scene()
    one = explained("vqa/scenes", image, text)
    assert one.heard_scores is not None
    return sheet.word_strip(drawn(one, image, width=224), one.words, one.heard, one.heard_scores)


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "caption": caption,
    "question": question,
    "class": classes,
    "truth": truth,
    "layers": layers,
    "captioners": captioners,
    "heard": heard,
}


if __name__ == "__main__":
    sys.exit(main())
