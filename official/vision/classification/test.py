"""Test a network on the validation images of a folder.

published weights   python test.py --data DIR --arch resnet50
own checkpoint      python test.py --data DIR --model output/resnet50/best.safetensors
MegEngine weights   python test.py --data DIR --arch resnet50 --model weights.pkl
more results        python test.py --data DIR --arch resnet50 --tta --calibrate --json result.json
report as a page    python test.py --data DIR --arch resnet50 --report report

DIR holds val/ (or test/) with one folder of images per class. Every image counts once, on any
number of devices.
"""

import argparse
import sys
from typing import Optional, Sequence

from .engine import flags
from .testing.benchmarks import BENCHMARKS
from .testing.tester import TestConfig, test


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("test.py", __doc__)
    _add_everyday(parser)
    _add_results(parser.add_argument_group("what else is counted"))
    compute = parser.add_argument_group("computing")
    flags.add_precision(compute, int8=True)
    flags.add_calibration(compute)
    flags.add_skip_broken(compute)
    flags.add_print_freq(compute)
    flags.add_devices(parser)
    flags.add_list(parser)
    return parser


def _add_everyday(parser: argparse.ArgumentParser) -> None:
    flags.add_data(parser, "val/")
    flags.add_weights(parser)
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="which images to test on (default: val, or test where there is none; of a data set "
        "without splits, those that the weights' run has held out, or all)",
    )
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write report.html (accuracy by class, confusions, calibration, worst images) and "
        "predictions.csv (every image) into this folder",
    )
    flags.add_language(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="also write the counts and percentages to a JSON file"
    )
    flags.add_batch_size(parser, 100)
    flags.add_device(parser)
    flags.add_workers(parser)


def _add_results(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--tta",
        action="store_true",
        help="also report flip TTA: the probabilities averaged over images and mirror images",
    )
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a temperature on every second image; report the expected calibration error of "
        "the others before and after",
    )
    group.add_argument(
        "--class-map",
        metavar="FILE",
        help="YAML or JSON file of folder: class, for folders that are not named as the classes",
    )
    group.add_argument(
        "--benchmark",
        choices=tuple(BENCHMARKS),
        help="the images are those of this test set for networks of ImageNet's classes, and are "
        "also counted as its paper defines; see docs/testing.md",
    )
    group.add_argument(
        "--real-labels", metavar="FILE", help="with --benchmark imagenet-real: its real.json"
    )


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
            calibration=args.calibration,
            batch_size=args.batch_size,
            workers=args.workers,
            print_freq=args.print_freq,
            json=args.json,
            tta=args.tta,
            calibrate=args.calibrate,
            report=args.report,
            benchmark=args.benchmark,
            real_labels=args.real_labels,
            split=args.split,
            language=args.lang,
            skip_broken=args.skip_broken,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
