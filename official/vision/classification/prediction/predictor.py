"""Classifying the images that ``inference.py`` is given."""

import contextlib
import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from ..data.calibrating import calibration_of
from ..data.normalize import Normalize
from ..engine.console import Console
from ..engine.device import choose_device, prepare, use_device
from ..engine.files import check_target
from ..engine.schema import InferencePrecision
from ..engine.scoring import ClassScore, Scorer, top_scores
from ..engine.skipping import SHOWN
from ..errors import DataError, UsageError
from ..zoo.trained import Network, NetworkConfig, open_network
from .drawing import annotate, heat_maps, heat_of
from .images import ImageFile, PreparedImage, find_images, is_one_file, prepared_batches
from .outputs import (
    CsvFile,
    FeaturesFile,
    JsonLinesFile,
    JsonOnConsole,
    Lines,
    Pictures,
    Prediction,
    Sink,
    picture_targets,
    spare_images,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictConfig:
    """Which images, which network, and what is written.

    Args:
        images: files, folders and patterns.
        json: whether the console shows JSON instead of lines.
        calibration: a folder of images for int8; None for those given.
        csv, jsonl, features: files to write; None for none.
        save_image, saliency: likewise, or folders if there are several images.
        tta: whether the average with the mirrored images is reported as well.
        skip_broken: whether images that cannot be used are expected, and no failure.
    """

    images: Sequence[str]
    network: NetworkConfig = NetworkConfig()
    device: str = "auto"
    precision: InferencePrecision = "fp32"
    calibration: Optional[str] = None
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
    skip_broken: bool = False


def predict(config: PredictConfig) -> int:
    """Report the top classes of images; return the exit code.

    It is 1 when some of several images could not be used and that is not expected; these are named
    in the log.

    Raises:
        UserError: for what the user can mend.
    """
    single = is_one_file(config.images)
    files = find_images(config.images)
    targets = _check_outputs(config, files, single)
    if single:
        files[0].read()  # what is wrong with it is said before weights are fetched
    device = choose_device(config.device, 1)
    use_device(device)
    features_only = {*targets} == {"--features"} and not config.json
    network = open_network(replace(config.network, features_only=features_only))
    given = len(files), lambda index: files[index].read()
    stated = network.config.int8_ranges
    calibration = calibration_of(
        config.precision, config.calibration, stated, given, network.preprocess
    )
    prepare(network.model, device, config.precision, calibration)
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
    """From a list of files to what is written about them."""

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
        normalize = Normalize(network.preprocess, network.model.ops)
        self.score = Scorer(network.model, normalize, bool(config.saliency or config.features))
        self.console = Console()
        self.failed: List[str] = []  # what is wrong with the images that could not be used

    def run(self) -> int:
        """Do it; return the exit code."""
        config = self.config
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
        self._summarise()
        if len(self.failed) == len(self.files):
            return 1
        return 1 if self.failed and not config.skip_broken else 0

    def _sinks(self) -> Iterator[Callable[[], Sink]]:
        config = self.config
        top_k = min(config.top_k, self.network.num_classes)
        if self.network.config.num_classes is None:  # nothing to predict with
            yield partial(FeaturesFile, Path(config.features or ""))
            return
        if config.json:
            skipped = self.failed if config.skip_broken else None
            yield partial(JsonOnConsole, self.console, self.single, skipped)
        elif not self._in_files:
            yield partial(Lines, self.console, self.single)
        if config.csv:
            yield partial(CsvFile, Path(config.csv), top_k, config.tta)
        if config.jsonl:
            yield partial(JsonLinesFile, Path(config.jsonl))
        if config.features:
            yield partial(FeaturesFile, Path(config.features))
        for flag, draw in (("--save-image", _drawn), ("--saliency", _coloured)):
            if flag in self.targets:
                yield partial(Pictures, flag, self.targets[flag], draw)

    @property
    def _in_files(self) -> bool:
        """Whether predictions go to files and not to the console."""
        return bool(self.config.csv or self.config.jsonl)

    def _predictions(self) -> Iterator[Prediction]:
        config = self.config
        batches = prepared_batches(
            self.files,
            config.batch_size,
            self.network.preprocess,
            0 if self.single else config.workers,
            shown=bool(config.save_image or config.saliency),
            on_error=self._skip,
        )
        if not self.single:
            self.console.start_bar("Predict", len(self.files))
        done = 0
        for step, batch in enumerate(batches):
            yield from self._scored(batch)
            self.console.advance(batch[-1].number + 1 - done)  # with those that were skipped
            done = batch[-1].number + 1
            if self._in_files and not config.json and step % config.print_freq == 0:
                self.console.tick(f"Predict {done}/{len(self.files)}")

    def _scored(self, batch: List[PreparedImage]) -> Iterator[Prediction]:
        config, nothing = self.config, [None] * len(batch)
        images = np.stack([image.pixels for image in batch])
        scores = self.score(images)
        # Without a classifier there are no names, and its logits mean nothing.
        tops: Sequence[List[ClassScore]] = (
            top_scores(scores.logits, self.names, config.top_k) if self.names else [[]] * len(batch)
        )
        averages: Sequence[Optional[List[ClassScore]]] = nothing
        if config.tta:
            averaged = self.score.flip_average(images, scores.logits)
            averages = top_scores(averaged, self.names, config.top_k)
        heat: Sequence[Optional[List[np.ndarray]]] = nothing
        if config.saliency and scores.maps is not None:
            classifier = self.network.model.fc.weight.numpy()
            heat = [heat_of(one, classifier, top) for one, top in zip(scores.maps, tops)]
        features = nothing if scores.features is None else scores.features
        for row in zip(batch, tops, averages, features, heat):
            yield Prediction(*row)

    def _skip(self, error: DataError) -> None:
        if self.single:
            raise error
        self.failed.append(str(error))
        if not self.config.skip_broken or len(self.failed) <= SHOWN:
            logger.warning("%s", error)

    def _summarise(self) -> None:
        config = self.config
        if self.failed:
            logger.warning(
                "%d of %d images could not be used; they are left out",
                *(len(self.failed), len(self.files)),
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
    assert prediction.image.picture is not None  # --save-image and --saliency ask for it
    return annotate(prediction.image.picture, prediction.top)


def _coloured(prediction: Prediction) -> np.ndarray:
    image = prediction.image
    assert image.picture is not None and prediction.heat is not None  # --saliency asks for them
    return heat_maps(image.picture, prediction.heat, image.seen, prediction.top)
