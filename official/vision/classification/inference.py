"""Name what is in pictures.

published weights   python inference.py cat.jpg --arch resnet50
own checkpoint      python inference.py cat.jpg --model output/resnet50/best.safetensors
MegEngine weights   python inference.py cat.jpg --arch resnet50 --model weights.pkl
a folder            python inference.py photos --arch resnet50 --csv answers.csv

Several images, folders and patterns may be named. An image that cannot be read is reported on
stderr and left out; the exit code is then 1, or 0 with --skip-broken. - stands for an image on
standard input.
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
    _add_everyday(parser)
    _add_output(parser.add_argument_group("output"))
    compute = parser.add_argument_group("computing")
    flags.add_batch_size(compute, 32, "batch")
    flags.add_precision(compute, int8=True)
    flags.add_calibration(compute)
    flags.add_workers(compute)
    flags.add_skip_broken(compute)
    flags.add_print_freq(compute)
    flags.add_list(parser)
    return parser


def _add_everyday(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="images, folders with images in them and below, or quoted patterns such as "
        "'photos/**/*.jpg' (default: the photograph of a cat that comes along)",
    )
    parser.add_argument(
        *("-i", "--image"),
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
    flags.add_device(parser)


def _add_output(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--json", action="store_true", help="print JSON instead of lines: a list for several images"
    )
    group.add_argument("--csv", metavar="FILE", help="write a CSV file with a row per image")
    group.add_argument("--jsonl", metavar="FILE", help="write a file with a line of JSON per image")
    group.add_argument(
        "--save-image",
        metavar="FILE",
        help="save the image with its classes below, .png or .jpg; a folder for several images",
    )
    group.add_argument(
        "--saliency",
        metavar="FILE",
        help="save the image beside heat maps (Grad-CAM) of its two likeliest classes; a folder "
        "for several images",
    )
    group.add_argument(
        "--features", metavar="FILE", help="save the pooled features and the image paths, .npz"
    )


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
            skip_broken=args.skip_broken,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
