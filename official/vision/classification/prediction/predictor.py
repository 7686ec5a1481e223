"""Naming what is in pictures."""

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from ..data.image import read_image
from ..engine.console import Console
from ..engine.device import choose_device, prepare, use_device
from ..engine.files import check_target
from ..engine.schema import Precision
from ..errors import DataError, UsageError
from ..zoo.trained import Network, NetworkConfig, open_network
from .answers import JsonOnConsole, Lines, Prediction, Sink
from .files import CsvFile, FeaturesFile, JsonLinesFile, Pictures, picture_targets, spare_images
from .image_reader import ImageReader, PreparedImage
from .inference import Judge, likeliest
from .picture import annotate
from .saliency import grad_cam, overlay
from .sources import ImageFile, find_images, is_one_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictConfig:
    """Which pictures, which network, and how the answer is told.

    Args:
        images: files, folders and patterns.
        json: whether the console is told JSON instead of lines.
        csv, jsonl, features: files to write; None for none.
        save_image, saliency: likewise, or folders if there are several images.
        tta: whether the mirrored images are asked about too.
    """

    images: Sequence[str]
    network: NetworkConfig = NetworkConfig()
    device: str = "auto"
    precision: Precision = "fp32"
    top_k: int = 5
    batch_size: int = 32
    workers: int = 2
    print_freq: int = 20
    json: bool = False
    csv: Optional[str] = None
    jsonl: Optional[str] = None
    save_image: Optional[str] = None
    features: Optional[str] = None
    saliency: Optional[str] = None
    tta: bool = False


def predict(config: PredictConfig) -> int:
    """Tell the likeliest classes of pictures; return the exit code.

    It is 1 when some of several pictures could not be used; these are named in the log.

    Raises:
        UserError: for what the user can mend.
    """
    single = is_one_file(config.images)
    files = find_images(config.images)
    targets = _check_outputs(config, files, single)
    if single:
        read_image(files[0].path)  # what is wrong with it is told before weights are fetched
    device = choose_device(config.device, 1)
    use_device(device)
    network = open_network(config.network)
    prepare(network.model, device, config.precision)
    return _Job(config, network, files, single, targets).run()


def _check_outputs(
    config: PredictConfig, files: Sequence[ImageFile], single: bool
) -> Dict[str, List[Path]]:
    """See that the files that are asked for can be made; say which they are, by flag."""
    named = {
        "--csv": config.csv,
        "--jsonl": config.jsonl,
        "--features": config.features,
        "--save-image": config.save_image,
        "--saliency": config.saliency,
    }
    used: Dict[str, str] = {}
    targets: Dict[str, List[Path]] = {}
    for flag, where in named.items():
        if not where:
            continue
        place = os.path.realpath(where)
        if place in used:
            raise UsageError(f"{flag} {where}: is {used[place]}'s too; give another name")
        used[place] = flag
        if flag in ("--save-image", "--saliency"):
            targets[flag] = picture_targets(flag, where, files, single)
        else:
            check_target(flag, Path(where))
            targets[flag] = [Path(where)]
    spare_images(targets, files)
    return targets


class _Job:
    """From a list of files to what is told of them."""

    def __init__(
        self,
        config: PredictConfig,
        network: Network,
        files: Sequence[ImageFile],
        single: bool,
        targets: Dict[str, List[Path]],
    ):
        self.config = config
        self.network = network
        self.names = network.names
        self.files = files
        self.single = single
        self.targets = targets
        self.judge = Judge(network, whole=bool(config.saliency or config.features))
        self.mirrored_judge = Judge(network)
        self.console = Console()
        self.failed = 0

    def run(self) -> int:
        """Do it; return the exit code."""
        sinks: List[Sink] = []
        # The lines of the log would run into the bar.
        redirected = logging_redirect_tqdm() if self.console.live else contextlib.nullcontext()
        with redirected:
            try:
                for make in self._sinks():
                    sinks.append(make())
                for prediction in self._predictions():
                    for sink in sinks:
                        sink.add(prediction)
                while sinks:
                    sinks[0].close()
                    del sinks[0]
            except BaseException:
                for sink in sinks:
                    sink.abandon()
                raise
            finally:
                self.console.stop_bar()
        self._tell_the_end()
        return 1 if self.failed else 0

    def _sinks(self) -> Iterator[Callable[[], Sink]]:
        config = self.config
        top_k = min(config.top_k, self.network.num_classes)
        if config.json:
            yield lambda: JsonOnConsole(self.console, self.single)
        elif not self._in_files:
            yield lambda: Lines(self.console, self.single)
        if config.csv:
            yield lambda: CsvFile(Path(config.csv), top_k, config.tta)
        if config.jsonl:
            yield lambda: JsonLinesFile(Path(config.jsonl))
        if config.features:
            yield lambda: FeaturesFile(Path(config.features))
        for flag, draw in (("--save-image", _drawn), ("--saliency", _coloured)):
            if flag in self.targets:
                yield lambda flag=flag, draw=draw: Pictures(flag, self.targets[flag], draw)

    @property
    def _in_files(self) -> bool:
        """Whether the console is spared the answers, as files hold them."""
        return bool(self.config.csv or self.config.jsonl)

    def _predictions(self) -> Iterator[Prediction]:
        config = self.config
        reader = ImageReader(
            self.network.preprocess,
            0 if self.single else config.workers,
            shown=bool(self.config.save_image or self.config.saliency),
            on_error=self._skip,
        )
        if not self.single:
            self.console.start_bar("Predict", len(self.files))
        done = 0
        for step, batch in enumerate(reader.batches(self.files, config.batch_size)):
            yield from self._judged(batch)
            self.console.advance(batch[-1].number + 1 - done)  # with those that were skipped
            done = batch[-1].number + 1
            if self._in_files and not config.json and step % config.print_freq == 0:
                self.console.tick(f"Predict {done}/{len(self.files)}")

    def _judged(self, batch: List[PreparedImage]) -> Iterator[Prediction]:
        config = self.config
        images = np.stack([image.pixels for image in batch])
        judged = self.judge(images)
        heat = both = None
        if config.saliency:
            classifier = self.network.model.fc.weight.numpy()
            heat = grad_cam(judged.maps, classifier, judged.probabilities.argmax(1))
        if config.tta:
            mirrored = self.mirrored_judge(np.ascontiguousarray(images[..., ::-1]))
            both = (judged.probabilities + mirrored.probabilities) / 2
        for row, image in enumerate(batch):
            yield Prediction(
                image,
                likeliest(judged.probabilities[row], self.names, config.top_k),
                None if both is None else likeliest(both[row], self.names, config.top_k),
                None if judged.features is None else judged.features[row],
                None if heat is None else heat[row],
            )

    def _skip(self, error: DataError) -> None:
        if self.single:
            raise error
        self.failed += 1
        logger.warning("%s", error)

    def _tell_the_end(self) -> None:
        config = self.config
        if self.failed:
            logger.warning(
                "%d of %d images could not be used; they are left out",
                *(self.failed, len(self.files)),
            )
        if config.json:
            return
        plural = "" if self.single else "s"
        for what, where in (
            ("predictions", config.csv),
            ("predictions", config.jsonl),
            ("features", config.features),
            (f"picture{plural}", config.save_image),
            (f"heat map{plural}", config.saliency),
        ):
            if where:
                self.console.line(f"{what}: {where}")


def _drawn(prediction: Prediction) -> np.ndarray:
    return annotate(prediction.image.picture, prediction.top)


def _coloured(prediction: Prediction) -> np.ndarray:
    image = prediction.image
    return annotate(overlay(image.picture, prediction.heat, image.seen), prediction.top[:1])
