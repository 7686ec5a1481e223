#!/usr/bin/env python3
"""Check a data set of any kind before it is trained on: read every image, compare the splits.

The code and its flags are in official/vision/classification/commands/check_data.py;
"python tools/check_data.py --help" tells of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import startup  # noqa: E402

if __name__ == "__main__":
    sys.exit(startup.run("commands.check_data"))
