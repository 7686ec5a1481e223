#!/usr/bin/env python3
"""Pack a data set of any kind into WebDataset's shards, from which training reads in place.

The code and its flags are in official/vision/classification/commands/prepare_data.py;
"python tools/prepare_data.py --help" tells of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from official import startup  # noqa: E402

if __name__ == "__main__":
    sys.exit(startup.run("commands.prepare_data"))
