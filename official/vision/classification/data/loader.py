"""Batches of images, prepared by threads ahead of the network."""

from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, tee
from operator import itemgetter
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import DataError
from .augment import Augment, TrainTransform
from .dataset import ImageDataset
from .decoding.kinds import JPEG
from .image import check_image, decode_image
from .jpeg import PartDecoder, part_decoder
from .parallel import map_groups
from .resample import prepare
from .sampler import BatchIndices, Key, generator_of, sample_key
from .transforms import to_network_layout

Transform = Any  # called with an image and its generator, it returns an image


def decoder_for(images: ImageDataset, augment: Augment) -> Optional[PartDecoder]:
    """What decodes the crops of these images, if they are files; compiled at the first use."""
    return part_decoder() if images.has_files and augment.crop == "resized" else None


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
        self._decoder: Optional[PartDecoder] = None  # where images need not be decoded whole

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self.transform, TrainTransform):
            self._decoder = decoder_for(self.folder, self.transform.augment)
        if getattr(self.transform, "library", "cv2") == "pillow":
            prepare()
        batches, ahead = tee(self.batches)
        loaded = map_groups(self._load, map(self._parts, ahead), self.workers, self.prefetch)
        with closing(loaded):
            for batch in batches:
                yield self._join(batch, next(loaded))

    def _parts(self, batch: BatchIndices) -> List[Tuple[int, np.ndarray, np.ndarray]]:
        """Cut a batch into parts, several per thread but not so small that queueing them costs."""
        if self.workers == 0:
            return [(batch.epoch, batch.indices, batch.copies)]
        parts = -(-len(batch.indices) // 16)
        parts = max(parts, min(2 * self.workers, len(batch.indices)))
        indices, copies = (np.array_split(one, parts) for one in (batch.indices, batch.copies))
        return [(batch.epoch, *part) for part in zip(indices, copies)]

    def _load(self, epoch: int, indices: np.ndarray, copies: np.ndarray) -> List[np.ndarray]:
        images: List[np.ndarray] = []
        for index, repeats in groupby(zip(indices.tolist(), copies.tolist()), itemgetter(0)):
            # Repetitions of an image come in a row: what is decoded serves for all of them.
            keys = [sample_key(self.seed, epoch, index, copy) for _, copy in repeats]
            images += self._prepare(index, keys)
        return [to_network_layout(image, self.order) for image in images]

    def _prepare(self, index: int, keys: Sequence[Key]) -> List[np.ndarray]:
        """An image as the network will see it, once for each generator."""
        if len(keys) > 1 or self._decoder is None:
            image = self.folder.read(index)
        else:
            data, name = self.folder.content(index), self.folder.paths[index]
            part = self.transform.of_file(data, None, keys[0], self._decoder)
            if part is not None:
                return [part]
            kind, header = check_image(data, name)
            if kind == JPEG:
                part = self.transform.of_file(data, header, keys[0], self._decoder)
                if part is not None:
                    return [part]
            image = decode_image(data, name)
        try:
            return [self.transform(image, generator_of(key)) for key in keys]
        except DataError as error:
            raise DataError(f"{self.folder.paths[index]}: {error}") from None

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
