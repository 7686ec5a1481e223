"""Record what torchvision's and timm's transforms make of drawn images: transforms.json.gz.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 numpy==2.2.6 pillow==13.0.0
    python tests/oracles/make_transforms.py

(Python 3.11, CPU.) Of each result there is the sha256 of its pixels, ``(H, W, RGB)`` uint8 before
they are normalised.
"""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import seeded
from torch_oracle import declare_torchvision_ops

FILE = Path(__file__).resolve().parent / "transforms.json.gz"
# Height and width: larger and smaller than the crops, upright and lying, square and narrow.
SIZES = [(375, 500), (500, 333), (300, 301), (97, 130), (250, 250), (641, 427), (90, 700)]
# Crop, timm's crop_pct and interpolation: those of published rows.
TIMM = [
    *((160, 0.95, "bicubic"), (176, 0.875, "bicubic"), (176, 0.9, "bicubic")),
    *((224, 0.875, "bilinear"), (224, 0.875, "bicubic"), (224, 0.95, "bicubic")),
    *((224, 0.965, "bilinear"), (224, 1.0, "bicubic"), (256, 0.94, "bicubic")),
    *((288, 0.95, "bicubic"), (288, 1.0, "bicubic"), (320, 1.0, "bicubic")),
]


def picture(height: int, width: int) -> np.ndarray:
    """``(height, width, 3)`` uint8, coarse and fine squares."""
    values = seeded.images(height, width, 1)[0]
    return np.uint8(np.clip(values * 50 + 128, 0, 255)).transpose(1, 2, 0)


def pixels(transform: object, image: np.ndarray) -> str:
    from PIL import Image

    made = transform(Image.fromarray(image))
    values = (made.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def main() -> None:
    declare_torchvision_ops()
    import timm
    import torchvision
    from timm.data import create_transform
    from torchvision.transforms._presets import ImageClassification

    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    found = []
    for height, width in SIZES:
        image = picture(height, width)
        for resize in (256, 232):  # IMAGENET1K_V1 and V2
            transform = ImageClassification(crop_size=224, resize_size=resize, **plain)
            settings = {"resize": resize, "crop": 224, "interpolation": "bilinear"}
            found.append(["torchvision", height, width, settings, pixels(transform, image)])
        for crop, share, interpolation in TIMM:
            transform = create_transform(
                (3, crop, crop), interpolation=interpolation, crop_pct=share, **plain
            )
            settings = {"crop": crop, "crop_pct": share, "interpolation": interpolation}
            found.append(["timm", height, width, settings, pixels(transform, image)])
    versions = f"torchvision {torchvision.__version__}, timm {timm.__version__}"
    text = json.dumps({"versions": versions, "images": found}, indent=0).encode()
    FILE.write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
