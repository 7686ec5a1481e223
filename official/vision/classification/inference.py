"""Name what is in pictures.

published weights   python inference.py --arch resnet50 --image cat.jpg
own checkpoint      python inference.py --model output/resnet50/best.safetensors --image cat.jpg
MegEngine weights   python inference.py --arch resnet50 --model weights.pkl --image cat.jpg
a folder            python inference.py --arch resnet50 --image photos --csv answers.csv

Several images, folders and patterns may be named. One that cannot be read is told on stderr and
left out; the exit code is 1 then.
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from .engine import flags
from .prediction.predictor import PredictConfig, predict

EXAMPLE = Path(__file__).resolve().parents[2] / "assets" / "example.jpg"


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("inference.py", __doc__)
    parser.add_argument(
        "-i",
        "--image",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="pictures, folders with pictures in them and below, or quoted patterns such as "
        "'photos/**/*.jpg'; may be repeated (default: a star drawn by tools/make_shapes.py)",
    )
    flags.add_weights(parser)
    parser.add_argument(
        "--top-k", type=flags.positive, default=5, metavar="K", help="classes told (default: 5)"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="tell the mean over the picture and its mirror image as well, apart",
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        type=flags.positive,
        default=32,
        metavar="N",
        help="images at once (default: 32)",
    )
    told = parser.add_argument_group("how it is told")
    told.add_argument(
        "--json", action="store_true", help="print JSON instead of lines: a list for several images"
    )
    told.add_argument("--csv", metavar="FILE", help="write a row per image there")
    told.add_argument("--jsonl", metavar="FILE", help="write a line of JSON per image there")
    told.add_argument(
        "--save-image",
        metavar="FILE",
        help="save the picture with its classes below, .png or .jpg; for several images, a folder",
    )
    told.add_argument(
        "--saliency",
        metavar="FILE",
        help="likewise, coloured by what in it speaks for the likeliest class (Grad-CAM)",
    )
    told.add_argument(
        "--features", metavar="FILE", help="save the pooled features and the names, .npz"
    )
    flags.add_precision(parser)
    flags.add_device(parser)
    flags.add_workers(parser)
    flags.add_print_freq(parser)
    return parser


def start(args: argparse.Namespace) -> int:
    """Predict as the flags say."""
    return predict(
        PredictConfig(
            images=args.image or [str(EXAMPLE)],
            network=flags.network(args),
            device=args.device,
            precision=args.precision or "fp32",
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
