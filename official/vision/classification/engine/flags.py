"""Command lines: the flags the three scripts share, and how they fail."""

import argparse
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Callable, NoReturn, Optional, Sequence, get_args

import cv2

from .. import __version__
from ..distributed.launch import Topology
from ..errors import UserError
from ..log import log_to_stderr
from ..preprocess import PRESETS, parse_preprocess
from ..text import nearest, printable
from ..zoo.listing import lines_for
from ..zoo.trained import NetworkConfig
from .console import escape_unencodable
from .schema import InferencePrecision, Precision

DEFAULT_DATA = "/data/datasets/imagenet"


class Parser(argparse.ArgumentParser):
    """Help that shows defaults; errors of one line that name the nearest flag."""

    def __init__(self, prog: str, doc: str):
        """``doc`` is the script's docstring: what it does, a blank line, examples.

        pip installs train.py as the command resnet-train: help and errors use the name called by.
        """
        installed = f"resnet-{Path(prog).stem}"
        if Path(sys.argv[0]).name == installed:
            doc, prog = doc.replace(f"python {prog}", installed), installed
        description, epilog = doc.split("\n\n", 1)
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        found = re.match(r"unrecognized arguments: (--?[^\s=]+)", message)
        if found:
            near = nearest(found[1], self._option_string_actions)
            if near:
                message = f"unknown flag {found[1]}; did you mean {near[0]}?"
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run(
    parser: Parser,
    start: Callable[[argparse.Namespace], int],
    argv: Optional[Sequence[str]],
) -> int:
    """Call ``start`` with the flags; turn a user's error into a line on stderr and an exit code."""
    args = parse(parser, argv)
    prog = parser.prog
    # MegEngine switches denormal numbers off, and numpy remarks on it when it is asked for limits.
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal")
    cv2.setLogLevel(0)  # silent: our errors name the file
    log_to_stderr(prog)
    try:
        if getattr(args, "list", None) is not None:
            sys.stdout.writelines(f"{line}\n" for line in lines_for(args.list, args.min_top1))
            return 0
        return start(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"{prog}: error: {printable(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 141
    except OSError as error:  # a full disk, a folder that has gone
        if args.debug:
            traceback.print_exc()
        reason = f"{error.filename or 'output'}: {error.strerror or error}"
        sys.stderr.write(f"{prog}: error: {printable(reason)}\n")
        return 1


def add_data(parser: argparse._ActionsContainer, contents: str, positional: bool = True) -> None:
    """--data and its aliases, and the same by its place: ``train.py photos``."""
    if positional:
        parser.add_argument("data_path", nargs="?", metavar="DATA", help="the same as --data DATA")
    parser.add_argument(
        "-d",
        "--data",
        "--dataset-dir",
        "--data_dir",
        metavar="PATH",
        default=DEFAULT_DATA,
        help=f"folder with {contents}, one folder of images per class each; or a CIFAR archive, "
        "CUB_200_2011 or a CSV list, see docs/datasets.md (default: %(default)s)",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """--arch, --model, --num-classes and --preprocess of a network that is already trained."""
    add_arch(parser)
    parser.add_argument(
        "-m",
        "--model",
        "--ckpt_path",
        metavar="FILE|ROW",
        help="weights, a checkpoint or a published row (default: the network's first row)",
    )
    parser.add_argument(
        "--num-classes", type=positive, metavar="N", help="classes (default: the weights')"
    )
    add_preprocess(parser)
    add_entry(parser)


def add_arch(parser: argparse.ArgumentParser) -> None:
    """--arch of a network that is already trained."""
    parser.add_argument(
        "-a",
        "--arch",
        "--model-name",
        metavar="NAME",
        help="network or published row (default: the one the weights name, else resnet18)",
    )


def add_list(parser: argparse.ArgumentParser) -> None:
    """--list and --min-top1: which published weights there are."""
    group = parser.add_argument_group("choosing")
    group.add_argument(
        "--list",
        nargs="?",
        const="*",
        metavar="PATTERN",
        help="print the networks and published weights whose name fits, such as 'resnet50*', with "
        "accuracy, size, cost and licence, and end",
    )
    group.add_argument(
        "--min-top1",
        type=positive_float,
        metavar="PERCENT",
        help="with --list: only weights of at least this published accuracy",
    )


def add_preprocess(parser: argparse.ArgumentParser) -> None:
    """--preprocess."""
    parser.add_argument(
        "--preprocess",
        metavar="HOW",
        help=f"override the weights' preprocessing: {', '.join(PRESETS)}, or YAML or JSON, inline "
        "or a file, with order, mean, std, resize, crop, interpolation, library, rounding",
    )


def add_entry(parser: argparse._ActionsContainer) -> None:
    """--average and --entry, for files that hold more than one set of weights."""
    parser.add_argument(
        "--average",
        action="store_true",
        help="use the running mean of the weights (EMA), where the file has one beside them",
    )
    parser.add_argument(
        "--entry", metavar="NAME", help="which entry of the file to use, such as state_dict"
    )


def network(args: argparse.Namespace, file: Optional[str] = None) -> NetworkConfig:
    """Which trained network the flags mean.

    Args:
        file: its weights, where --model does not name them.
    """
    return NetworkConfig(
        args.arch,
        file or args.model,
        getattr(args, "num_classes", None),
        parse_preprocess(args.preprocess) if args.preprocess else None,
        args.average,
        args.entry,
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """--device."""
    parser.add_argument(
        "--device",
        choices=("auto", "gpu", "cpu"),
        default="auto",
        help="auto uses a GPU if there is one (default: auto)",
    )


def add_precision(parser: argparse._ActionsContainer, int8: bool = False) -> None:
    """--precision, of which int8 is for inference alone."""
    words = "bf16 and int8 are" if int8 else "bf16 is"
    parser.add_argument(
        "--precision",
        choices=get_args(InferencePrecision if int8 else Precision),
        help=f"{words} faster on CPUs that have instructions for it (default: fp32)",
    )


def add_calibration(parser: argparse._ActionsContainer) -> None:
    """--calibration."""
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        help="images that set what the bytes of int8 stand for, 64 of those in this folder "
        "and below (default: 64 of the images given)",
    )


def add_devices(parser: argparse.ArgumentParser) -> None:
    """--device and the flags that spread a job over several."""
    group = parser.add_argument_group("devices")
    add_device(group)
    group.add_argument(
        "-n",
        "--ngpus",
        type=positive,
        default=1,
        metavar="N",
        help="GPUs on this node, one process each; with --device cpu, processes (default: 1)",
    )
    group.add_argument(
        "--distribute",
        type=_boolean,
        default=True,
        metavar="BOOL",
        help="false: one process, whatever --ngpus and --world-size say",
    )
    group.add_argument(
        "--world-size", type=positive, default=1, metavar="N", help="number of nodes (default: 1)"
    )
    group.add_argument(
        "--rank", type=natural, default=0, metavar="N", help="this node's number (default: 0)"
    )
    group.add_argument(
        "--dist-addr",
        default="localhost",
        metavar="HOST",
        help="address of node 0 (default: localhost)",
    )
    group.add_argument(
        "--dist-port",
        type=positive,
        default=23456,
        metavar="PORT",
        help="port on node 0 (default: 23456)",
    )
    group.add_argument(
        "--dist-timeout",
        type=positive_float,
        default=1800.0,
        metavar="SECONDS",
        help="give up after this many seconds without progress (default: 1800)",
    )


def add_workers(
    parser: argparse.ArgumentParser,
    do: str = "prepare images, per process",
    may_be_none: bool = True,
) -> None:
    """--workers: how many threads ``do`` that; with 0 of them the main thread does it."""
    parser.add_argument(
        "-j",
        "--workers",
        type=natural if may_be_none else positive,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help=f"threads that {do} (default here: %(default)s)",
    )


def add_print_freq(parser: argparse.ArgumentParser) -> None:
    """--print-freq."""
    parser.add_argument(
        "-p",
        "--print-freq",
        type=positive,
        default=20,
        metavar="N",
        help="steps between two lines of progress (default: 20)",
    )


def topology(args: argparse.Namespace) -> Topology:
    """Which processes the flags ask for."""
    if not args.distribute:
        return Topology()
    return Topology(
        ngpus=args.ngpus,
        nodes=args.world_size,
        node=args.rank,
        address=args.dist_addr,
        port=args.dist_port,
        timeout=args.dist_timeout,
    )


def positive(text: str) -> int:
    """A flag's value that must be 1, 2, 3, …"""
    return _integer(text, 1)


def natural(text: str) -> int:
    """A flag's value that must be 0, 1, 2, …"""
    return _integer(text, 0)


def positive_float(text: str) -> float:
    """A flag's value that must be a number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """A flag's value that must lie between 0 and 1."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def parse(parser: Parser, argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line; what contradicts itself is refused."""
    escape_unencodable()  # --help, too
    args = parser.parse_intermixed_args(argv)  # "cat.jpg --arch resnet50" and the other way round
    for name, value in vars(args).items():
        if isinstance(value, str) and value.startswith("~"):  # --save=~/x: no shell expands that
            setattr(args, name, os.path.expanduser(value))  # noqa: PTH111 never fails
    if getattr(args, "data_path", None) is not None:
        if args.data != parser.get_default("data"):
            parser.error(f"the data is given twice, as {args.data_path} and as --data {args.data}")
        args.data = args.data_path
    if getattr(args, "min_top1", None) is not None and args.list is None:
        parser.error("--min-top1 needs --list")
    if hasattr(args, "rank") and args.rank >= args.world_size:
        parser.error(f"--rank {args.rank} needs --world-size {args.rank + 1} or more")
    return args


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
    return value


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]
