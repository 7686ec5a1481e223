"""Name what is in pictures.

published weights   python inference.py cat.jpg --arch resnet50
own checkpoint      python inference.py cat.jpg --model output/resnet50/best.safetensors
MegEngine weights   python inference.py cat.jpg --arch resnet50 --model weights.pkl
a folder            python inference.py photos --arch resnet50 --csv answers.csv

Several images, folders and patterns may be named. An image that cannot be read is reported on
stderr and left out; the exit code is then 1. - stands for an image on standard input.
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from .engine import flags
from .prediction.predictor import PredictConfig, predict

EXAMPLE = Path(__file__).resolve().parents[2] / "assets" / "cat.jpg"


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("inference.py", __doc__)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="images, folders with images in them and below, or quoted patterns such as "
        "'photos/**/*.jpg' (default: the photograph of a cat that comes along)",
    )
    parser.add_argument(
        "-i",
        "--image",
        nargs="+",
        action="extend",
        default=[],
        metavar="IMAGE",
        help="the same; may be repeated",
    )
    flags.add_weights(parser)
    parser.add_argument(
        "--top-k",
        type=flags.positive,
        default=5,
        metavar="K",
        help="classes per image (default: 5)",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="also report flip TTA: the probabilities averaged over the image and its mirror image",
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        type=flags.positive,
        default=32,
        metavar="N",
        help="images per batch (default: 32)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="print JSON instead of lines: a list for several images"
    )
    output.add_argument("--csv", metavar="FILE", help="write a CSV file with a row per image")
    output.add_argument(
        "--jsonl", metavar="FILE", help="write a file with a line of JSON per image"
    )
    output.add_argument(
        "--save-image",
        metavar="FILE",
        help="save the image with its classes below, .png or .jpg; a folder for several images",
    )
    output.add_argument(
        "--saliency",
        metavar="FILE",
        help="save the image beside heat maps (Grad-CAM) of its two likeliest classes; a folder "
        "for several images",
    )
    output.add_argument(
        "--features", metavar="FILE", help="save the pooled features and the image paths, .npz"
    )
    flags.add_precision(parser, int8=True)
    flags.add_calibration(parser)
    flags.add_device(parser)
    flags.add_workers(parser)
    flags.add_print_freq(parser)
    flags.add_list(parser)
    return parser


def start(args: argparse.Namespace) -> int:
    """Predict as the flags say."""
    return predict(
        PredictConfig(
            images=[*args.images, *args.image] or [str(EXAMPLE)],
            network=flags.network(args),
            device=args.device,
            precision=args.precision or "fp32",
            calibration=args.calibration,
            top_k=args.top_k,
            batch_size=args.batch_size,
            workers=args.workers,
            print_freq=args.print_freq,
            json=args.json,
            csv=args.csv,
            jsonl=args.jsonl,
            save_image=args.save_image,
            features=args.features,
            saliency=args.saliency,
            tta=args.tta,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
