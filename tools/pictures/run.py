"""Pictures of a run as README.md shows it: its curves, and the top of its report."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 1120, 866  # pixels of the report that are shown
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def draw_run(folder: Path) -> None:
    """Write curves.png and report.png of a network trained on drawn shapes; takes minutes.

    Raises:
        SystemExit: without Chromium, or when one of the commands fails.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("--run needs Chromium or Chrome, which takes the picture of the report")
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "output" / "resnet20_cifar"
        for command in (
            "tools/make_shapes.py data/shapes --train 1500 --val 500 --seed 0",
            "train.py data/shapes --arch resnet20_cifar -c shapes --save output --device cpu",
            f"test.py data/shapes --model {run}/best.safetensors --report report --device cpu",
        ):
            script, *words = command.split()
            lang = ["--lang", "en"] if script == "test.py" else []
            subprocess.run(
                [sys.executable, str(ROOT / script), *words, *lang], cwd=place, check=True
            )
        shutil.copy(run / "curves.png", folder / "curves.png")
        shot = Path(place) / "report.png"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += [f"--user-data-dir={place}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        page = f"file://{place}/report/report.html"
        subprocess.run([browser, *flags, f"--screenshot={shot}", page], check=True)
        with Image.open(shot) as image:  # 256 colours are enough, at a third of the size
            small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            small.save(folder / "report.png", optimize=True)
