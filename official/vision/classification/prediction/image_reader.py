"""Images prepared by threads ahead of the network, where some of them may be unreadable."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Deque, Iterable, Iterator, List, Optional, Tuple, Union

import cv2
import numpy as np

from ..data.image import read_image
from ..data.transforms import center_crop, resize, to_network_layout
from ..errors import DataError
from ..preprocess import Preprocess
from .picture import fit
from .sources import ImageFile

Box = Tuple[float, float, float, float]  # top, left, bottom, right, as shares of the image's edges


@dataclass(frozen=True)
class PreparedImage:
    """What the network is fed of one file.

    Args:
        number: the image's position in the list, from 0.
        pixels: ``(3, H, W)`` uint8 in the network's channel order.
        picture: ``(h, w, 3)`` uint8, BGR, the whole image at the size at which it is shown; None
            where it is not wanted.
        seen: what part of the image ``pixels`` is.
    """

    file: ImageFile
    number: int
    pixels: np.ndarray
    picture: Optional[np.ndarray]
    seen: Box


def prepare_image(
    file: ImageFile, number: int, preprocess: Preprocess, shown: bool
) -> PreparedImage:
    """Read one file and prepare it as for evaluation.

    Args:
        shown: whether its picture is wanted as well.

    Raises:
        DataError: naming the file, when it cannot be read or does not fit.
    """
    image = read_image(file.path)
    try:
        resized = resize(image, preprocess)
        crop, rounding = preprocess.crop, preprocess.rounding
        seen = center_crop(resized, crop, rounding) if crop else resized
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None
    pixels = to_network_layout(seen, preprocess.order)
    picture = fit(image) if shown else None
    return PreparedImage(file, number, pixels, picture, _box(resized.shape[:2], preprocess))


def _box(shape: Tuple[int, ...], preprocess: Preprocess) -> Box:
    """The central crop of an image that is ``shape`` after resizing."""
    if not preprocess.crop:
        return 0.0, 0.0, 1.0, 1.0
    height, width = shape
    rows = np.broadcast_to(np.arange(height)[:, None], shape)
    columns = np.broadcast_to(np.arange(width), shape)
    top = center_crop(rows, preprocess.crop, preprocess.rounding)[0, 0]
    left = center_crop(columns, preprocess.crop, preprocess.rounding)[0, 0]
    bottom, right = top + preprocess.crop, left + preprocess.crop
    return top / height, left / width, bottom / height, right / width


class ImageReader:
    """Reads and prepares images in ``workers`` threads, a bounded number ahead of the consumer.

    Args:
        preprocess: what the images need.
        workers: threads; 0 prepares every image when it is asked for.
        shown: whether their pictures are wanted as well.
        on_error: called in the consumer's thread, in the images' order, for every one that cannot
            be used; the others go on unless it raises.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        workers: int,
        shown: bool,
        on_error: Callable[[DataError], None],
    ):
        self.preprocess = preprocess
        self.workers = workers
        self.shown = shown
        self.on_error = on_error

    def batches(self, files: Iterable[ImageFile], size: int) -> Iterator[List[PreparedImage]]:
        """Up to ``size`` images of one shape at a time, in order."""
        batch: List[PreparedImage] = []
        for found in self._ahead(files, 2 * size + self.workers):
            if isinstance(found, DataError):
                self.on_error(found)
                continue
            if batch and (len(batch) == size or batch[0].pixels.shape != found.pixels.shape):
                yield batch
                batch = []
            batch.append(found)
        if batch:
            yield batch

    def _ahead(
        self, files: Iterable[ImageFile], limit: int
    ) -> Iterator[Union[PreparedImage, DataError]]:
        if self.workers == 0:
            for number, file in enumerate(files):
                yield self._try(file, number)
            return
        cv2.setNumThreads(0)  # one thread per image, as in the loader of training
        with ThreadPoolExecutor(self.workers, "reader") as pool:
            under_way: Deque[Future] = deque()
            try:
                for number, file in enumerate(files):
                    under_way.append(pool.submit(self._try, file, number))
                    if len(under_way) >= limit:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:  # an error, or a consumer that has seen enough
                for future in under_way:
                    future.cancel()

    def _try(self, file: ImageFile, number: int) -> Union[PreparedImage, DataError]:
        try:
            return prepare_image(file, number, self.preprocess, self.shown)
        except DataError as error:
            return error
