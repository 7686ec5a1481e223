"""Test a network on the validation images of a folder.

published weights   python test.py --data DIR --arch resnet50
own checkpoint      python test.py --data DIR --model output/resnet50/best.safetensors
MegEngine weights   python test.py --data DIR --arch resnet50 --model weights.pkl
more numbers        python test.py --data DIR --arch resnet50 --tta --calibrate --json result.json
page to look at     python test.py --data DIR --arch resnet50 --report report

DIR holds val/ (or test/) with one folder of images per class. Every image counts once, on any
number of devices.
"""

import argparse
import sys
from typing import Optional, Sequence

from .engine import flags
from .testing.tester import TestConfig, test


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("test.py", __doc__)
    flags.add_data(parser, "val/")
    flags.add_weights(parser)
    parser.add_argument(
        "-b",
        "--batch-size",
        type=flags.positive,
        default=100,
        metavar="N",
        help="images per device and step (default: 100)",
    )
    parser.add_argument(
        "--class-map",
        metavar="FILE",
        help="YAML or JSON of folder: class, where the folders are not named as the classes are",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the counts and percentages there as well"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test the mean over every image and its mirror image as well, told apart",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a temperature on every other image, and tell the expected calibration error of "
        "the others before and after",
    )
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write report.html there, with accuracy by class, confusions, calibration and the "
        "worst images, and predictions.csv with the answer to every image",
    )
    flags.add_precision(parser)
    flags.add_devices(parser)
    flags.add_workers(parser)
    flags.add_print_freq(parser)
    return parser


def start(args: argparse.Namespace) -> int:
    """Test as the flags say."""
    return test(
        TestConfig(
            data=args.data,
            network=flags.network(args),
            class_map=args.class_map,
            topology=flags.topology(args),
            device=args.device,
            precision=args.precision or "fp32",
            batch_size=args.batch_size,
            workers=args.workers,
            print_freq=args.print_freq,
            json=args.json,
            tta=args.tta,
            calibrate=args.calibrate,
            report=args.report,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
