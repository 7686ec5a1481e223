#!/usr/bin/env python3
"""Name what is in pictures.

The code is official/vision/classification/inference.py; "python inference.py --help" tells of it.
"""

import sys

from official.startup import inference

if __name__ == "__main__":
    sys.exit(inference())
