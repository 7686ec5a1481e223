"""The images that an int8 network is calibrated on, and those that it is judged by."""

from dataclasses import dataclass
from typing import Callable, Iterator, List, Tuple

import numpy as np

from ..data.dataset import ImageDataset
from ..data.folder import load_split
from ..data.loader import Batch, Loader
from ..data.normalize import Normalize
from ..data.sampler import BatchIndices, eval_batches
from ..data.transforms import EvalTransform
from ..engine.evaluation import Counter, Result
from ..engine.labels import label
from ..engine.scoring import finite
from ..errors import DataError
from ..zoo.trained import Network
from .check import Runner
from .description import input_shape

BATCH = 32

Progress = Callable[[int], None]  # is told of every batch's size


@dataclass(frozen=True)
class Images:
    """Prepares images of a data set as ``network`` needs them."""

    network: Network
    workers: int

    def batches(
        self, folder: ImageDataset, batches: Iterator[BatchIndices]
    ) -> Iterator[Tuple[np.ndarray, Batch]]:
        """``(N, 3, H, W)`` float32 images, and the batch that they are of.

        Raises:
            DataError: for an image that cannot be read or has another size than the file takes.
        """
        preprocess = self.network.preprocess
        normalize = Normalize(preprocess)
        shape = input_shape(self.network)
        transform = EvalTransform(preprocess)
        for batch in Loader(folder, transform, preprocess.order, batches, workers=self.workers):
            if batch.images.shape[1:] != shape:
                raise DataError(
                    f"{folder.paths[batch.indices[0]]}: {batch.images.shape[2:]} pixels where the "
                    f"exported network takes {shape[1:]}; --preprocess with crop makes them equal"
                )
            yield normalize(batch.images).numpy(), batch


def calibration_images(
    images: Images, folder: ImageDataset, count: int, progress: Progress
) -> Iterator[np.ndarray]:
    """Batches of ``count`` images drawn from ``folder`` without repetition, always the same."""
    chosen = np.random.default_rng(0).permutation(len(folder))[:count]
    parts: List[np.ndarray] = np.array_split(chosen, -(-len(chosen) // BATCH))
    batches = (BatchIndices(0, part, np.zeros_like(part)) for part in parts)
    for values, batch in images.batches(folder, batches):
        progress(len(batch))
        yield values


def accuracy(
    images: Images, folder: ImageDataset, runners: Tuple[Runner, ...], progress: Progress
) -> List[Result]:
    """How many images of ``folder`` each of ``runners`` classifies right.

    Raises:
        TrainingError: when outputs are not finite.
    """
    counters = [Counter() for _ in runners]
    for values, batch in images.batches(folder, eval_batches(len(folder), BATCH, 0, 1)):
        for counter, run in zip(counters, runners):
            counter.add(finite(run(values), "the exported network's"), batch.labels)
        progress(len(batch))
    return [counter.result(len(folder)) for counter in counters]


def load_both(data: str, network: Network) -> Tuple[ImageDataset, ImageDataset]:
    """The ``train`` images of a data set, for calibration, and its ``val`` ones, labelled.

    Raises:
        DataError: when either is missing, or the classes are not the network's.
    """
    return load_split(data, "train"), label(load_split(data, "val"), network)
