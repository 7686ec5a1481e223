#!/usr/bin/env python3
"""Draw the pictures of README.md and docs/ anew from what is in official/ and docs/.

    python tools/draw_pictures.py
    python tools/draw_pictures.py --run

A test fails when they differ. --run trains the network whose curves and report are shown, which
takes minutes and needs Chromium, and draws these two only.
"""

import argparse
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence

import matplotlib
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official.vision.classification import inference  # noqa: E402
from official.vision.classification.engine.device import use_device  # noqa: E402
from tools.pictures import style  # noqa: E402
from tools.pictures.accuracy import draw_accuracy  # noqa: E402
from tools.pictures.architectures import draw_architectures  # noqa: E402
from tools.pictures.fine_tuning import draw_fine_tuning  # noqa: E402
from tools.pictures.run import draw_run  # noqa: E402

FOLDER = ROOT / "docs" / "pictures"
ASSETS = ROOT / "official" / "assets"
PICTURES: Dict[str, Callable[[], Figure]] = {
    "architectures": draw_architectures,
    "accuracy": draw_accuracy,
    "fine_tuning": draw_fine_tuning,
}


def draw(name: str, path: Path) -> None:
    """Write one of ``PICTURES`` as SVG."""
    with matplotlib.rc_context(style.SETTINGS):
        style.save(PICTURES[name](), path)


def draw_photograph(path: Path) -> None:
    """Write what ``inference.py cat.jpg --saliency`` draws, by the weights that come along."""
    code = inference.main(
        [str(ASSETS / "cat.jpg"), "--arch", "resnet20_cifar", "--device", "cpu"]
        + ["--saliency", str(path)]
    )
    if code:
        raise SystemExit(code)


def main(argv: Sequence[str] = ()) -> int:
    """Write all of them; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="draw curves.png and report.png")
    args = parser.parse_args(argv)
    use_device("cpu")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if args.run:
        draw_run(FOLDER)
        return 0
    for name in PICTURES:
        draw(name, FOLDER / f"{name}.svg")
    draw_photograph(FOLDER / "cat.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
