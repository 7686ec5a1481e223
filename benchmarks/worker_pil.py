"""Training batches from photographs on one core, by Pillow and PyTorch as torchvision uses them.

Run by compare.py in .venv-torch; see worker.py for what is said on the standard input and output.
torchvision itself is not needed: these are the operations of its RandomResizedCrop,
RandomHorizontalFlip, ToTensor and Normalize on Pillow's images, with its defaults.
"""

import math
import random
import sys
from pathlib import Path
from typing import List, Tuple

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import worker  # noqa: E402

SIZE = 224
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def main() -> int:
    """Serve; return the exit code."""
    args = worker.loader_parser(__doc__).parse_args()
    server = worker.Server()
    worker.only_core(args.core)
    torch.set_num_threads(1)
    paths = sorted(
        path for path in Path(args.photos).glob("*/*") if path.suffix.lower() in SUFFIXES
    )

    def step() -> float:
        seen = 0
        for start in range(0, len(paths), args.batch):
            images = [load(path) for path in paths[start : start + args.batch]]
            seen += len(torch.stack(images))
        return float(seen)

    versions = {"Pillow": PIL.__version__, "PyTorch": torch.__version__}
    return server.serve(step, args.warmup, {"images": len(paths), "versions": versions})


def load(path: Path, area: Tuple[float, float] = AREA) -> Tensor:
    """A file to ``(3, 224, 224)`` float32, RGB, normalised."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    left, top, width, height = draw_box(*image.size, area)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalised(image)


def draw_box(
    full_width: int, full_height: int, share: Tuple[float, float]
) -> Tuple[int, int, int, int]:
    """Left, top, width and height of torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = full_width * full_height * random.uniform(*share)
        aspect = math.exp(random.uniform(*map(math.log, ASPECT)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= full_width and 0 < height <= full_height:
            left = random.randint(0, full_width - width)
            top = random.randint(0, full_height - height)
            return left, top, width, height
    aspect = min(max(full_width / full_height, ASPECT[0]), ASPECT[1])
    width = min(full_width, round(full_height * aspect))
    height = min(full_height, round(full_width / aspect))
    return (full_width - width) // 2, (full_height - height) // 2, width, height


def normalised(image: Image.Image) -> Tensor:
    """torchvision's to_tensor and normalize."""
    pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
    values = pixels.to(torch.float32).div(255)
    mean, std = (_per_channel(list(each)) for each in (MEAN, STD))
    return values.sub_(mean).div_(std)


def _per_channel(numbers: List[float]) -> Tensor:
    return torch.tensor(numbers).view(3, 1, 1)


if __name__ == "__main__":
    sys.exit(main())
