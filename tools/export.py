#!/usr/bin/env python3
"""Export a network to ONNX or to MegEngine's .mge, and see that the file gives the same logits.

The code and its flags are in official/vision/classification/commands/export.py;
"python tools/export.py --help" tells of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import startup  # noqa: E402

if __name__ == "__main__":
    sys.exit(startup.run("commands.export"))
