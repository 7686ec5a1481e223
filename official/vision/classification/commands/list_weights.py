"""List the networks and the published weights to choose from.

all                resnet list
of a kind          resnet list 'resnet50*'
accurate ones      resnet list --min-top1 80

train.py, test.py and inference.py do the same with --list.
"""

import argparse
import sys
from typing import Optional, Sequence

from ..engine import flags
from ..zoo.listing import lines_for


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("list", __doc__)
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="of the name, such as 'resnet50*'"
    )
    parser.add_argument(
        "--min-top1",
        dest="least",
        type=flags.positive_float,
        metavar="PERCENT",
        help="only weights of at least this published accuracy",
    )
    return parser


def start(args: argparse.Namespace) -> int:
    """List as the flags say."""
    sys.stdout.writelines(f"{line}\n" for line in lines_for(args.pattern, args.least))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
