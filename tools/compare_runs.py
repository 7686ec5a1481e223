#!/usr/bin/env python3
"""Compare training runs: accuracy, time, and what differs between their recipes.

The code and its flags are in official/vision/classification/commands/compare_runs.py;
"python tools/compare_runs.py --help" tells of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import startup  # noqa: E402

if __name__ == "__main__":
    sys.exit(startup.run("commands.compare_runs"))
