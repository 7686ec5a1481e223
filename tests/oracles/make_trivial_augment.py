"""Record torchvision's TrivialAugmentWide: trivial_augment.json.gz.

    pip install torch==2.13.0 torchvision==0.28.0 numpy==2.2.6 pillow==13.0.0
    python tests/oracles/make_trivial_augment.py

(Python 3.11, CPU.) Of each change there are its 31 strengths, whether it has a sign, and what it
makes of a drawn image, ``(H, W, RGB)`` uint8, at some strengths of both signs: all in base64.
"""

import base64
import gzip
import json
from pathlib import Path

import numpy as np
import seeded
from torch_oracle import declare_torchvision_ops

FILE = Path(__file__).resolve().parent / "trivial_augment.json.gz"
HEIGHT, WIDTH = 24, 30
STRENGTHS = (4, 17)


def picture() -> np.ndarray:
    """``(HEIGHT, WIDTH, 3)`` uint8, smooth enough for one interpolation to be like another."""
    values = seeded.images(HEIGHT, WIDTH, 1)[0]
    for axis in (1, 2):
        for _ in range(8):
            values = (np.roll(values, 1, axis) + 2 * values + np.roll(values, -1, axis)) / 4
    return np.uint8(np.clip(values * 60 + 120, 0, 255)).transpose(1, 2, 0)


def encoded(image: object) -> str:
    return base64.b64encode(np.asarray(image).tobytes()).decode()


def main() -> None:
    declare_torchvision_ops()
    import torchvision
    from PIL import Image
    from torchvision.transforms import InterpolationMode, autoaugment

    image = Image.fromarray(picture())
    found = {}
    space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    for name, (strengths, signed) in space.items():
        values = [float(value) for value in strengths.reshape(-1)]
        made = {}
        for number in STRENGTHS if len(values) > 1 else (0,):
            for sign in (1, -1) if signed else (1,):
                value = sign * values[number]
                changed = autoaugment._apply_op(
                    image, name, value, InterpolationMode.BILINEAR, [0.0, 0.0, 0.0]
                )
                made[f"{value:.9g}"] = encoded(changed)
        found[name] = {"strengths": values, "signed": signed, "made": made}
    versions = f"torchvision {torchvision.__version__}"
    text = json.dumps({"versions": versions, "picture": encoded(image), "changes": found})
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
