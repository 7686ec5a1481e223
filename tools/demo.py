"""The main job in a few minutes, offline: draw a data set, train, test, name what is in pictures.

    make demo

It ends with a photograph, named by weights that come along. Everything is written to demo/, which
is made anew each time.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List, Sequence

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo"
DATA = DEMO / "shapes"
RUN = DEMO / "output" / "resnet20_cifar"
PICTURE = DEMO / "star.png"
CAT, HEAT = DEMO / "cat.png", DEMO / "cat-heat.png"
RESULT = DEMO / "result.json"
REPORT = DEMO / "report"
TARGET = 95.0  # per cent top-1 that the demo must reach

STEPS: List[List[Any]] = [
    ["tools/make_shapes.py", DATA, "--train", 1500, "--val", 500, "--seed", 0],
    ["train.py", "--data", DATA, "--arch", "resnet20_cifar", "-c", "shapes", "--device", "cpu"]
    + ["--save", DEMO / "output"],
    ["test.py", "--data", DATA, "--model", RUN / "best.safetensors", "--device", "cpu"]
    + ["--json", RESULT, "--report", REPORT],
    ["inference.py", "--model", RUN / "best.safetensors", "--device", "cpu"]
    + ["--image", DATA / "val" / "star" / "00008.png", "--save-image", PICTURE],
    # A photograph, by weights for ten classes of photographs; both come along.
    ["inference.py", ROOT / "official" / "assets" / "cat.jpg", "--arch", "resnet20_cifar"]
    + ["--device", "cpu", "--save-image", CAT, "--saliency", HEAT],
]


def main(argv: Sequence[str] = ()) -> int:
    """Run every step as a user would type it; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    started = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    for script, *arguments in STEPS:
        words = [str(word) for word in arguments]
        shown = [word.replace(f"{ROOT}/", "") for word in words]
        say(f"\n$ python {script} {' '.join(shown)}")
        code = subprocess.run([sys.executable, script, *words], cwd=ROOT).returncode
        if code:
            say(f"demo: {script} failed with exit code {code}")
            return code
    top1 = json.loads(RESULT.read_text())["top1"]
    say(f"\ndemo: accuracy {top1:.1f} % (expected at least {TARGET:.0f} %)")
    say(f"demo: done in {time.monotonic() - started:.0f} s")
    say(f"training curves: {(RUN / 'curves.png').relative_to(ROOT)}")
    for picture in (PICTURE, CAT, HEAT):
        say(f"picture:         {picture.relative_to(ROOT)}")
    say(f"report:          {(REPORT / 'report.html').relative_to(ROOT)}")
    return 0 if top1 >= TARGET else 1


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
