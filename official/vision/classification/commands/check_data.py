"""Check a data set of any kind before it is trained on: read every image, compare the splits.

image folders, CIFAR's archives, CUB-200-2011, CSV lists   python tools/check_data.py --data DIR
no training images                                         python tools/check_data.py --data DIR --split val

Exit code 1: something would stop a run, such as an image that cannot be read (unless --skip-broken
is given, as to the run) or a class of val/ that train/ does not have. Warnings, such as images that
are in both splits, leave it 0.
"""  # noqa: E501

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from ..data.check import Report, check_data
from ..engine import flags
from ..engine.console import SplitBar
from ..engine.files import check_target, refuse_inside, write_atomically
from ..text import aligned, printable

SPLITS = ("train", "val", "test")
SHOWN = 20  # classes, and messages of a kind, that are listed one by one


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("check_data.py", __doc__)
    flags.add_data(parser, "train/, val/ and test/")
    parser.add_argument("--split", choices=SPLITS, help="look at one of them only (default: all)")
    parser.add_argument("--json", metavar="FILE", help="write all that was found to a JSON file")
    flags.add_workers(parser, "read images", may_be_none=False)
    flags.add_skip_broken(parser)
    return parser


def table(report: Report) -> List[str]:
    """Lines on the splits, and on their classes where these are few."""
    rows: List[Tuple[object, ...]] = [
        ("split", "images", "classes", "fewest", "most", "unreadable", "damaged")
    ]
    counts = report.counts
    for split, by_class in counts.items():
        filled = [count for count in by_class.values() if count]
        rows.append(
            (
                split,
                sum(filled),
                len(filled),
                min(filled),
                max(filled),
                len(report.unreadable[split]),
                report.damaged[split],
            )
        )
    lines = aligned(rows)
    names = {name: None for by_class in counts.values() for name in by_class}
    if len(names) <= SHOWN:
        rows = [("class", *counts)]
        for name in names:
            rows.append((name, *(by_class.get(name, 0) for by_class in counts.values())))
        lines += ["", *aligned(rows)]
    return lines


def messages(report: Report) -> List[str]:
    """What is wrong, and what may be."""
    unreadable = [reason for reasons in report.unreadable.values() for reason in reasons]
    remarks = [remark for found in report.remarks.values() for remark in found]
    lines = []
    for kind, found in (
        ("problem", report.problems),
        ("skipped" if report.skip_broken else "problem", unreadable),
        ("warning", report.warnings),
        ("warning", remarks),
    ):
        lines += [f"{kind}: {printable(text)}" for text in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"{kind}: … and {len(found) - SHOWN} more; --json FILE has all")
    return lines


def verdict(report: Report) -> str:
    """In a word."""
    damaged = sum(report.damaged.values())
    unreadable = sum(map(len, report.unreadable.values()))
    if report.is_sound and unreadable:
        return f"usable with --skip-broken, which leaves {unreadable} images out"
    if report.is_sound:
        return f"usable, but {damaged} images are damaged" if damaged else "sound"
    hint = "" if report.problems else "; --skip-broken goes on without those images"
    return f"not usable as it is{hint}"


def start(args: argparse.Namespace) -> int:
    """Check as the flags say."""
    if args.json:
        check_target("--json", Path(args.json))
        refuse_inside("--json", Path(args.json), Path(args.data))
    splits = (args.split,) if args.split else SPLITS
    bar = SplitBar("Read")
    try:
        report = check_data(args.data, splits, args.workers, bar, args.skip_broken)
    finally:
        bar.console.stop_bar()
    lines = table(report) if report.counts else []
    lines += messages(report)
    lines.append(f"{printable(args.data)}: {verdict(report)}")
    for line in lines:
        bar.console.line(line)
    if args.json:
        found = {"data": args.data, "sound": report.is_sound, **asdict(report)}
        if found.pop("skip_broken"):
            found["skipped"] = {split: len(one) for split, one in report.unreadable.items()}
        write_atomically(Path(args.json), (json.dumps(found, indent=2) + "\n").encode())
    return 0 if report.is_sound else 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
