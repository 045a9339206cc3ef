"""Explain a caption, a question and a class of embedded pictures: the main job on the embedded default.

python scripts/demo.py --out runs/demo
"""

import argparse
import sys
from pathlib import Path

from mmcam.cli import main as mmcam
from mmcam.scenes.draw import draw
from mmcam.scenes.questions import questions
from mmcam.scenes.write import scenes


def main() -> int:
    """Draw fresh scenes and run the command line on them, as a user would."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where pictures and dumps go")
    parser.add_argument(
        "--seed", type=int, default=2027, help="of the scenes; the shipped models have seen seed 0 only"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # The first scene in which something stands beside something else has the most to tell.
    scene, question = next(
        (scene, question)
        for scene in scenes(arguments.seed, "test", 100)
        for question in questions(scene, 12)
        if question.form == "what" and len(scene.things) == 3
    )
    picture = arguments.out / "scene.png"
    draw(scene)[0].save(picture)
    jobs = {
        "caption": [],
        "question": ["--question", question.text],
        "class": ["--class", ", ".join(dict.fromkeys(thing.kind for thing in scene.things))],
    }
    for name, options in jobs.items():
        print(f"\n{name}: mmcam explain {picture} {' '.join(f'{o!r}' if ' ' in o else o for o in options)}")
        files = ["--hdf5", "--html", str(arguments.out / f"{name}.html"), "--out", str(arguments.out / name)]
        if code := mmcam(["explain", str(picture), *options, *files]):
            return code
    print(f"\nStrips, raw maps and JSON are in {arguments.out}/{{caption,question,class}}; maps.h5 is the HDF5 dump.")
    print(f"To look: open {arguments.out}/caption.html in a browser, or `make web` to try pictures of your own.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
