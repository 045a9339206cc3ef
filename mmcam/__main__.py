"""`python -m mmcam`: the command line, for who has no `mmcam` on the path."""

import sys

from mmcam.cli import main

if __name__ == "__main__":
    sys.exit(main())
