#!/usr/bin/env python3
"""Draw the pictures of docs/networks.md anew from the networks and the rows in official/.

    python tools/draw_pictures.py

A test fails when they differ.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence

import matplotlib
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402
from tools.pictures import style  # noqa: E402
from tools.pictures.accuracy import draw_accuracy  # noqa: E402
from tools.pictures.architectures import draw_architectures  # noqa: E402

FOLDER = ROOT / "docs" / "pictures"
PICTURES: Dict[str, Callable[[], Figure]] = {
    "architectures": draw_architectures,
    "accuracy": draw_accuracy,
}


def draw(name: str, path: Path) -> None:
    """Write one of ``PICTURES`` as SVG."""
    with matplotlib.rc_context(style.SETTINGS):
        style.save(PICTURES[name](), path)


def main(argv: Sequence[str] = ()) -> int:
    """Write all of them; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    use_device("cpu")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        draw(name, FOLDER / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
