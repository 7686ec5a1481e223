"""Convert a weight file of MegEngine, PyTorch, MMPreTrain or MindCV; none of them is needed.

a published row   python tools/convert_weights.py r50.pth --arch resnet50_8xb32_in1k --out r50.safetensors
any network       python tools/convert_weights.py r18.pth --arch resnet18 --preprocess torchvision --out r18.safetensors
for megengine     python tools/convert_weights.py r18.pth --arch resnet18 --out r18.pkl --verify
an average        python tools/convert_weights.py checkpoint.safetensors --average --half --out r20.safetensors
ready for int8    python tools/convert_weights.py r18.safetensors --calibration photos --out r18_int8.safetensors
for PyTorch       python tools/convert_weights.py best.safetensors --to timm --out model.safetensors

A .safetensors knows its network, classes and preprocessing, so that test.py and inference.py need
no more flags; PyTorch's tools read it, too, where its names are theirs. A .pkl is a state dict for
megengine.load and load_state_dict.
"""  # noqa: E501

import argparse
import sys
from typing import Optional, Sequence

from ..engine import flags
from ..engine.device import use_device
from ..export.convert import ConvertConfig, convert
from ..export.elsewhere import PROJECTS


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("convert_weights.py", __doc__)
    parser.add_argument(
        "source", metavar="SRC", help="the weight file, of any known format, or its address"
    )
    flags.add_arch(parser)
    flags.add_preprocess(parser)
    flags.add_entry(parser)
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="what to write: .safetensors or .pkl"
    )
    parser.add_argument(
        "--to",
        choices=list(PROJECTS),
        help="give tensors the names and shapes that the network has in this project of PyTorch",
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the size")
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        help="images, 64 of those in this folder and below, that set what the bytes of int8 stand "
        "for; the file keeps it, so that --precision int8 needs no images",
    )
    parser.add_argument(
        "--verify", action="store_true", help="read both files again and compare every tensor"
    )
    parser.add_argument("--names", action="store_true", help="list every tensor and its old name")
    return parser


def start(args: argparse.Namespace) -> int:
    """Convert as the flags say."""
    use_device("cpu")
    network = flags.network(args, args.source)
    return convert(
        ConvertConfig(
            *(network, args.out, args.verify, args.names, args.half, args.to, args.calibration)
        )
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
