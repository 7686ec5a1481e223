#!/usr/bin/env python3
"""Train a ResNet on a folder of images.

The code is official/vision/classification/train.py; "python train.py --help" tells of it.
"""

import sys

from official.startup import train

if __name__ == "__main__":
    sys.exit(train())
