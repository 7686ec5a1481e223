#!/usr/bin/env python3
"""Test a network on the validation images of a folder.

The code is official/vision/classification/test.py; "python test.py --help" tells of it.
"""

import sys

from official.startup import test

if __name__ == "__main__":
    sys.exit(test())
