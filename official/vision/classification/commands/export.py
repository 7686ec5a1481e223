"""Export a network to ONNX or to MegEngine's .mge, and see that the file gives the same logits.

published weights   python tools/export.py --arch resnet50 --out r50.onnx
own checkpoint      python tools/export.py --model output/resnet50/best.safetensors --out r50.mge
only its form       python tools/export.py --arch resnetv1d50 --random-weights --out v1d.onnx
in int8             python tools/export.py --arch resnet50 --out r50-int8.onnx --int8 --data DIR

The file takes batches of any size. --int8 calibrates on images of DIR/train and tells the accuracy
on DIR/val in float32 and in int8. docs/export.md shows how to run the files. ONNX needs
pip install -r requirements-export.txt.
"""

import argparse
import os
import sys
from typing import Optional, Sequence

from ..engine import flags
from ..engine.device import use_device
from ..export.export import ExportConfig, export


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("export.py", __doc__)
    flags.add_weights(parser)
    parser.add_argument(
        "--random-weights", action="store_true", help="do without weights: as before training"
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="what to write: .onnx or .mge"
    )
    parser.add_argument("--int8", action="store_true", help="compute in 8-bit integers (.onnx)")
    flags.add_data(parser, "train/ and val/ for --int8", positional=False)
    parser.add_argument(
        "--calibration-images",
        type=flags.positive,
        default=256,
        metavar="N",
        help="images of train/ that set the scales of the integers (default: 256)",
    )
    flags.add_workers(parser, "prepare images")
    return parser


def start(args: argparse.Namespace) -> int:
    """Export as the flags say."""
    # The device of a .mge is "any", and tracing computes on it: let that be the CPU, too.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    use_device("cpu")
    return export(
        ExportConfig(
            flags.network(args),
            args.out,
            random_weights=args.random_weights,
            int8=args.int8,
            data=args.data,
            calibration=args.calibration_images,
            workers=args.workers,
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
