#!/usr/bin/env python3
"""Convert a weight file of MegEngine, PyTorch, MMPreTrain or MindCV; none of them is needed.

The code and its flags are in official/vision/classification/commands/convert_weights.py;
"python tools/convert_weights.py --help" tells of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import startup  # noqa: E402

if __name__ == "__main__":
    sys.exit(startup.run("commands.convert_weights"))
