"""Batches of images, prepared by threads ahead of the network.

Threads suffice: OpenCV decodes and resizes without Python's lock, nothing is copied between
processes, and an error reaches the consumer with its file's name.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, List, Tuple

import cv2
import numpy as np

from ..errors import DataError
from .dataset import ImageDataset
from .sampler import BatchIndices, sample_generator
from .transforms import to_network_layout

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Images with their labels and their positions in the data set."""

    images: np.ndarray  # (B, 3, H, W) uint8, in the network's channel order
    labels: np.ndarray  # (B,) int32
    indices: np.ndarray  # (B,) int64

    def __len__(self) -> int:
        return len(self.labels)


class Loader:
    """Iterates over the batches that ``batches`` names.

    Args:
        folder: the images.
        transform: applied to each decoded image with the image's own generator.
        order: channel order of the result, "BGR" or "RGB".
        batches: which images form which batch, from ``sampler``; a generator serves one pass.
        seed: of the images' generators.
        workers: threads; 0 prepares every batch when it is asked for.
        prefetch: batches that may be under way at once.

    Raises:
        DataError: from iteration, naming the image that cannot be used.
    """

    def __init__(
        self,
        folder: ImageDataset,
        transform: Transform,
        order: str,
        batches: Iterable[BatchIndices],
        seed: int = 0,
        workers: int = 2,
        prefetch: int = 4,
    ):
        self.folder = folder
        self.transform = transform
        self.order = order
        self.batches = batches
        self.seed = seed
        self.workers = workers
        self.prefetch = prefetch

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(0)  # one thread per image; OpenCV's own would only get in their way
        if self.workers == 0:
            for batch in self.batches:
                yield self._join(batch, [self._load(*batch)])
            return
        with ThreadPoolExecutor(self.workers, "loader") as pool:
            under_way: deque = deque()
            try:
                for batch in self.batches:
                    under_way.append((batch, self._submit(pool, batch)))
                    if len(under_way) >= self.prefetch:
                        yield self._collect(under_way.popleft())
                while under_way:
                    yield self._collect(under_way.popleft())
            finally:  # an error, or a consumer that has seen enough
                for _, parts in under_way:
                    for part in parts:
                        part.cancel()

    def _submit(self, pool: ThreadPoolExecutor, batch: BatchIndices) -> List[Future]:
        """Cut a batch into parts, several per thread but not so small that queueing them costs."""
        parts = -(-len(batch.indices) // 16)
        parts = max(parts, min(2 * self.workers, len(batch.indices)))
        return [
            pool.submit(self._load, batch.epoch, indices, copies)
            for indices, copies in zip(
                np.array_split(batch.indices, parts), np.array_split(batch.copies, parts)
            )
        ]

    def _collect(self, entry: Tuple[BatchIndices, List[Future]]) -> Batch:
        batch, parts = entry
        return self._join(batch, [part.result() for part in parts])

    def _load(self, epoch: int, indices: np.ndarray, copies: np.ndarray) -> List[np.ndarray]:
        images, image, last = [], None, None
        for index, copy in zip(indices.tolist(), copies.tolist()):
            if index != last:  # repetitions of an image come in a row: decode it once
                image, last = self.folder.read(index), index
            images.append(self._prepare(image, epoch, index, copy))
        return images

    def _prepare(self, image: np.ndarray, epoch: int, index: int, copy: int) -> np.ndarray:
        try:
            image = self.transform(image, sample_generator(self.seed, epoch, index, copy))
        except DataError as error:
            raise DataError(f"{self.folder.paths[index]}: {error}") from None
        return to_network_layout(image, self.order)

    def _join(self, batch: BatchIndices, parts: List[List[np.ndarray]]) -> Batch:
        images = [image for part in parts for image in part]
        for index, image in zip(batch.indices, images):
            if image.shape != images[0].shape:
                raise DataError(
                    f"{self.folder.paths[index]}: {image.shape[1:]} pixels where others have "
                    f"{images[0].shape[1:]}; images of one batch need a common size (crop)"
                )
        labels = self.folder.labels[batch.indices]
        stacked = np.stack([image.transpose(1, 2, 0) for image in images])  # as they lie in memory
        return Batch(stacked.transpose(0, 3, 1, 2), labels, np.asarray(batch.indices))
