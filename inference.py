#!/usr/bin/env python3
"""Name what is in a picture.

published weights   python inference.py --arch resnet50 --image cat.jpg
own checkpoint      python inference.py --model output/resnet50/best.safetensors --image cat.jpg
MegEngine weights   python inference.py --arch resnet50 --model weights.pkl --image cat.jpg
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from official.vision.classification.engine import flags
from official.vision.classification.engine.predictor import PredictConfig, predict

EXAMPLE = Path(__file__).resolve().parent / "official" / "assets" / "example.jpg"


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("inference.py", __doc__)
    parser.add_argument(
        "-i",
        "--image",
        default=str(EXAMPLE),
        metavar="FILE",
        help="picture (default: a star drawn by tools/make_shapes.py)",
    )
    flags.add_weights(parser)
    parser.add_argument(
        "--top-k", type=flags.positive, default=5, metavar="K", help="classes told (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument(
        "--save-image", metavar="FILE", help="save the picture with its classes below, .png or .jpg"
    )
    flags.add_device(parser)
    return parser


def start(args: argparse.Namespace) -> int:
    """Predict as the flags say."""
    return predict(
        PredictConfig(
            image=args.image,
            network=flags.network(args),
            device=args.device,
            top_k=args.top_k,
            json=args.json,
            save_image=args.save_image,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
