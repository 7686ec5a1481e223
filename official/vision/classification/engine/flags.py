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

from ....startup import COMMANDS, NO_MEMORY
from .. import __version__
from ..errors import UserError
from ..log import log_to_stderr
from ..ops.process import explained_memory
from ..preprocess import PRESETS, parse_preprocess
from ..text import nearest, printable, shortened
from ..zoo.listing import lines_for
from ..zoo.trained import NetworkConfig
from .console import escape_unencodable
from .nodes import topology as topology
from .schema import InferencePrecision, Precision
from .values import boolean, device, natural, port, positive, positive_float
from .values import share as share

DEFAULT_DATA = "/data/datasets/imagenet"


class Parser(argparse.ArgumentParser):
    """Help that shows defaults; errors of one line that name the nearest flag."""

    def __init__(self, prog: str, doc: str):
        """``doc`` is the script's docstring: what it does, a blank line, examples.

        pip installs train.py as the command resnet-train, and all scripts as commands of resnet:
        help and errors use the name called by.
        """
        doc = doc or "\n\n"  # python -OO has none
        called = Path(sys.argv[0]).name
        if called == f"resnet-{Path(prog).stem}":
            doc, prog = doc.replace(f"python {prog}", called), called
        elif called.startswith("resnet "):
            for name, (module, _) in COMMANDS.items():
                script = module.replace("commands.", "tools/").replace("tools.", "tools/") + ".py"
                doc = doc.replace(f"python {script}", f"resnet {name}")
            prog = called
        description, epilog = doc.split("\n\n", 1)
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._optionals.title = "flags"  # of every day; groups come after them
        self.rare = self.add_argument_group("rarely needed")
        self.rare.add_argument("--debug", action="store_true", help="show the traceback of errors")
        self.rare.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def format_help(self) -> str:
        """The help, with what is rarely needed at its end."""
        self._action_groups.sort(key=lambda group: group is self.rare)
        return super().format_help()

    def shorten_usage(self) -> None:
        """Leave the flags that are not required out of the usage; the help lists them below."""
        short = argparse.ArgumentParser(prog=f"{self.prog} [flags]", add_help=False)
        for action in self._actions:
            if action.required or not action.option_strings:
                short._add_action(action)
        self.usage = short.format_usage().split(": ", 1)[1].rstrip()

    def error(self, message: str) -> NoReturn:
        found = re.match(r"unrecognized arguments: (--?[^\s=]+)", message)
        if found:
            near = nearest(found[1], self._option_string_actions)
            if near:
                message = f"unknown flag {found[1]}; did you mean {near[0]}?"
        message = printable(shortened(message))  # of names that a pattern has found, too
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
        with explained_memory():
            return start(args)
    except UserError as error:
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"{prog}: error: {printable(shortened(str(error)))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"{prog}: interrupted\n")
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return 141
    except (OSError, MemoryError) as error:  # a full disk, a folder that has gone
        if args.debug:
            traceback.print_exc()
        reason = NO_MEMORY
        if isinstance(error, OSError):
            reason = f"{error.filename or 'output'}: {error.strerror or error}"
        sys.stderr.write(f"{prog}: error: {printable(shortened(reason))}\n")
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
        metavar="FILE|ROW|URL",
        help="weights, a checkpoint, a published row, https://… or hf://owner/name (default: the "
        "network's first row)",
    )
    group = parser.add_argument_group("what the weights are")
    group.add_argument(
        "--num-classes", type=positive, metavar="N", help="classes (default: the weights')"
    )
    add_preprocess(group)
    add_entry(group)


def add_arch(parser: argparse._ActionsContainer) -> None:
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


def add_preprocess(parser: argparse._ActionsContainer) -> None:
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
        type=device,
        metavar="auto|gpu|cpu",
        default="auto",
        help="auto uses a GPU if there is one (default: auto)",
    )


def add_language(parser: argparse._ActionsContainer) -> None:
    """--lang, of what --report writes."""
    parser.add_argument(
        "--lang",
        choices=("en", "zh"),
        help="language of the report (default: that of the locale, if it is one of these, else en)",
    )


def add_batch_size(
    parser: argparse._ActionsContainer, default: Optional[int], what: str = "step"
) -> None:
    """--batch-size; without ``default`` the recipe says it."""
    told = "" if default is None else f" (default: {default})"
    parser.add_argument(
        *("-b", "--batch-size"),
        type=positive,
        default=default,
        metavar="N",
        help=f"images per device and {what}{told}",
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
    """The flags that spread a job over several devices and nodes."""
    group = parser.add_argument_group("several devices or nodes")
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
        type=boolean,
        default=True,
        metavar="BOOL",
        help="false: one process, whatever --ngpus and --world-size say",
    )
    group.add_argument(
        "--world-size",
        type=positive,
        metavar="N",
        help="number of nodes (default: what srun or torchrun says, else 1)",
    )
    group.add_argument(
        "--rank", type=natural, metavar="N", help="this node's number (default: likewise, else 0)"
    )
    group.add_argument(
        "--dist-addr",
        metavar="HOST",
        help="address of node 0, where it listens (default: likewise, else localhost)",
    )
    group.add_argument(
        "--dist-secret",
        metavar="FILE",
        help="file with a word that all nodes share (default: RESNET_DIST_SECRET, else a file in "
        "the cache folder)",
    )
    group.add_argument(
        "--dist-port",
        type=port,
        metavar="PORT",
        help="port on node 0 (default: likewise, else 23456)",
    )
    group.add_argument(
        "--dist-timeout",
        type=positive_float,
        default=1800.0,
        metavar="SECONDS",
        help="give up after this many seconds without progress (default: 1800)",
    )


def add_workers(
    parser: argparse._ActionsContainer,
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


def add_skip_broken(parser: argparse._ActionsContainer) -> None:
    """--skip-broken."""
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="go on without images that cannot be read; they are counted, and the first few named",
    )


def add_print_freq(parser: argparse._ActionsContainer) -> None:
    """--print-freq."""
    parser.add_argument(
        "-p",
        "--print-freq",
        type=positive,
        default=20,
        metavar="N",
        help="steps between two lines of progress (default: 20)",
    )


def _expanded(parser: Parser, value: object) -> object:
    """With the home folder where that is meant: no shell expands --save=~/x."""
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    whole = os.path.expanduser(value)  # noqa: PTH111 never fails
    if whole == value and value.split("/")[0] == "~":  # an account without a name, and no HOME
        parser.error(f"{value}: there is no home folder (HOME); give the whole path")
    return whole


def parse(parser: Parser, argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Read the command line; what contradicts itself is refused."""
    escape_unencodable()  # --help, too
    parser.shorten_usage()
    args = parser.parse_intermixed_args(argv)  # "cat.jpg --arch resnet50" and the other way round
    for name, value in vars(args).items():
        if isinstance(value, str):
            setattr(args, name, _expanded(parser, value))
        elif isinstance(value, list):
            setattr(args, name, [_expanded(parser, each) for each in value])
    if getattr(args, "data_path", None) is not None:
        if args.data != parser.get_default("data"):
            parser.error(f"the data is given twice, as {args.data_path} and as --data {args.data}")
        args.data = args.data_path
    if getattr(args, "min_top1", None) is not None and args.list is None:
        parser.error("--min-top1 needs --list")
    if getattr(args, "rank", None) is not None and args.rank >= (args.world_size or 1):
        parser.error(f"--rank {args.rank} needs --world-size {args.rank + 1} or more")
    return args
