"""Training batches from photographs on one core: this repository's loader or megengine.data.

Run by compare.py; see worker.py for what is said on the standard input and output. A step is one
pass over the photographs: decode, RandomResizedCrop to 224 pixels, flip, normalise.
"""

import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import cv2
import megengine
import numpy as np
from megengine import Tensor
from megengine.data import DataLoader, SequentialSampler
from megengine.data.dataset import ImageFolder as StockFolder
from megengine.data.transform import (
    Compose,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToMode,
)
from megengine.data.transform import (
    Normalize as StockNormalize,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import worker  # noqa: E402
from official.vision.classification.data.augment import TrainTransform  # noqa: E402
from official.vision.classification.data.dataset import ImageDataset  # noqa: E402
from official.vision.classification.data.folder import load_folder  # noqa: E402
from official.vision.classification.data.loader import Loader  # noqa: E402
from official.vision.classification.data.normalize import Normalize  # noqa: E402
from official.vision.classification.data.sampler import eval_batches  # noqa: E402
from official.vision.classification.engine.device import cpu_threads, use_device  # noqa: E402
from official.vision.classification.ops.accelerate import cpu_ops  # noqa: E402
from official.vision.classification.preprocess import Preprocess  # noqa: E402

SIZE = 224
KINDS = ["uint8", "normalised", "decode", "stock"]


def main() -> int:
    """Serve one configuration; return the exit code."""
    parser = worker.loader_parser(__doc__)
    parser.add_argument("--kind", required=True, choices=KINDS)
    args = parser.parse_args()
    server = worker.Server()
    worker.only_core(args.core)
    cv2.setNumThreads(0)
    use_device("cpu")
    folder = load_folder(args.photos)
    if args.kind == "decode":
        step = decoding(folder)
    elif args.kind == "stock":
        step = a_pass(stock(args.photos, args.batch), len(folder))
    else:
        batches = ours(folder, args.batch, normalised=args.kind == "normalised")
        step = a_pass(batches, len(folder))
    facts = {
        "images": len(folder),
        "versions": {"OpenCV": cv2.__version__, "MegEngine": megengine.__version__},
    }
    return server.serve(step, args.warmup, facts)


def a_pass(batches: Callable[[], Iterator[Any]], images: int) -> worker.Step:
    """Go through all batches of ``(B, 3, H, W)`` and see that they are all there."""

    def step() -> float:
        seen = sum(batch.shape[0] for batch in batches())
        if seen != images:
            raise ValueError(f"a pass over {images} images has seen {seen}")
        return float(seen)

    return step


def decoding(folder: ImageDataset) -> worker.Step:
    """Nothing but what every loader on OpenCV must do: decode the files, which are in memory."""
    files = [np.frombuffer(folder.content(index), np.uint8) for index in range(len(folder))]

    def step() -> float:
        return float(sum(len(cv2.imdecode(file, cv2.IMREAD_COLOR)) > 0 for file in files))

    return step


def ours(folder: ImageDataset, batch: int, normalised: bool) -> Callable[[], Iterator[Any]]:
    """uint8 batches, as the loader hands them on; normalised on the device as in training."""
    normalize = Normalize(Preprocess(), cpu_ops(cpu_threads()))
    passes = iter(range(sys.maxsize))

    def batches() -> Iterator[Any]:
        seed = next(passes)  # other crops in every pass
        indices = eval_batches(len(folder), batch, rank=0, ranks=1)
        for each in Loader(folder, TrainTransform(SIZE), "BGR", indices, seed, workers=0):
            yield normalize(each.images) if normalised else each.images

    return batches


def stock(photos: str, batch: int) -> Callable[[], Iterator[Any]]:
    """What MegEngine/Models trains with, in the DataLoader without processes of its own."""
    p = Preprocess()
    folder = StockFolder(photos)
    loader = DataLoader(
        folder,
        sampler=SequentialSampler(folder, batch_size=batch),
        transform=Compose(
            [
                RandomResizedCrop(SIZE),
                RandomHorizontalFlip(),
                StockNormalize(mean=list(p.mean), std=list(p.std)),
                ToMode("CHW"),
            ]
        ),
    )

    def batches() -> Iterator[Any]:
        for images, _ in loader:
            yield images.numpy() if isinstance(images, Tensor) else images

    return batches


if __name__ == "__main__":
    sys.exit(main())
