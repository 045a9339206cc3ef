"""Put a trained model into the package: float16 weights and the configuration, under a name.

python scripts/ship.py runs/captioner captioning-scenes
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

import mmcam


def main() -> None:
    """Copy a folder of config.json and model.safetensors, halving the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder that `mmcam train` wrote")
    parser.add_argument("name", help="name of the shipped weights")
    arguments = parser.parse_args()
    folder = Path(mmcam.__file__).parent / "weights" / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(arguments.source / "model.safetensors")
    save_file({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, folder / "model.safetensors")
    shutil.copyfile(arguments.source / "config.json", folder / "config.json")


if __name__ == "__main__":
    main()
