#!/usr/bin/env python3
"""Test a network on the validation images of a folder.

The code is official/vision/classification/test.py; "python test.py --help" tells of it.
"""

import sys

from official.vision.classification.test import main

if __name__ == "__main__":
    sys.exit(main())
