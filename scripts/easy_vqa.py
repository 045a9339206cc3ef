"""Write the easy-VQA data set in VQA v2's format.

python scripts/easy_vqa.py --out runs/easy-vqa
"""

import argparse
from pathlib import Path

from vqa.easy_vqa import write_easy_vqa

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    write_easy_vqa(parser.parse_args().out)
