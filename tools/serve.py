#!/usr/bin/env python3
"""Open a page on this machine: photographs dropped there are named, with heat maps.

The code and its flags are in official/vision/classification/commands/serve.py;
"python tools/serve.py --help" tells of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import startup  # noqa: E402

if __name__ == "__main__":
    sys.exit(startup.run("commands.serve"))
