"""Test sets for networks that know ImageNet's 1,000 classes, counted as their papers define.

ImageNetV2: Recht et al., arXiv:1902.10811. ImageNet-A: Hendrycks et al., arXiv:1907.07174, and
ImageNet-R, arXiv:2006.16241: 200 of the classes, and the answer is the likeliest of these.
ImageNet-Sketch: Wang et al., arXiv:1905.13549. ReaL: Beyer et al., arXiv:2006.07159: ImageNet's
own images with every class that is right for each; those that have none do not count.
"""

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..data.dataset import ImageDataset, split_name
from ..data.folder import load_folder, load_split
from ..data.loader import Batch
from ..distributed.collectives import sum_over_ranks
from ..engine.evaluation import Counter
from ..errors import DataError, UsageError
from ..zoo.classes import dataset_classes
from ..zoo.rows import BY_NAME
from ..zoo.trained import Network

MAX_BYTES = 16 << 20  # of the file of ReaL labels, which has one

_ASSETS = Path(__file__).resolve().parents[3] / "assets"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark:
    """A test set.

    Args:
        title: what its authors call it.
        key: of a row's published accuracies.
        images: how many it has.
        classes: the file of its classes in ``official/assets``; None for all 1,000.
    """

    title: str
    key: str
    images: int
    classes: Optional[str] = None


BENCHMARKS: Dict[str, Benchmark] = {
    "imagenet-v2": Benchmark("ImageNetV2", "v2", 10_000),
    "imagenet-real": Benchmark("ImageNet ReaL", "real", 50_000),
    "imagenet-a": Benchmark("ImageNet-A", "a", 7_500, "imagenet_a_classes.txt"),
    "imagenet-r": Benchmark("ImageNet-R", "r", 30_000, "imagenet_r_classes.txt"),
    "imagenet-sketch": Benchmark("ImageNet-Sketch", "sketch", 50_889),
}


class Judge:
    """Counts the answers to a benchmark, batch by batch, beside ``evaluate``.

    Args:
        benchmark: one of ``BENCHMARKS``.
        folder: its images, with labels that index the network's classes.
        real_labels: for ReaL, the path of real.json, by its authors.

    Raises:
        UsageError: when the network does not know these classes, or the file does not fit.
        DataError: for images of other classes than the benchmark has.
    """

    def __init__(
        self, benchmark: str, folder: ImageDataset, network: Network, real_labels: Optional[str]
    ):
        self.benchmark = BENCHMARKS[benchmark]
        self.published = _published(self.benchmark, network)
        if network.num_classes != 1000:
            raise UsageError(
                f"--benchmark {benchmark}: for networks with ImageNet's 1,000 classes, and this "
                f"one has {network.num_classes}"
            )
        if (benchmark == "imagenet-real") != (real_labels is not None):
            raise UsageError("--real-labels FILE and --benchmark imagenet-real need each other")
        if len(folder) != self.benchmark.images:
            logger.warning(
                "%s: has %s images and %s has %s: what is counted is not its figure",
                *(folder.root, f"{len(folder):,}", self.benchmark.title),
                f"{self.benchmark.images:,}",
            )
        self.total = len(folder)
        self.counter = Counter()
        self.right = np.zeros(2, np.int32)  # by ReaL: right, counted
        self.among = self._among(folder)
        self.real = None if real_labels is None else _labels_of(folder, read_real(real_labels))

    def _among(self, folder: ImageDataset) -> np.ndarray:
        """Numbers of the classes that an answer may be."""
        if self.benchmark.classes is None:
            return np.arange(1000)
        known = dataset_classes("ImageNet-1k") or ()
        names = (_ASSETS / self.benchmark.classes).read_text(encoding="utf-8").split()
        among = np.array(sorted(known.index(name) for name in names))
        foreign = sorted(set(folder.labels.tolist()) - set(among.tolist()))
        if foreign:
            raise DataError(
                f"{folder.root}: {known[foreign[0]]} is no class of {self.benchmark.title}, which "
                f"has {len(among)} of the 1,000"
            )
        return among

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Count a batch with ``(N, 1000)`` logits."""
        if self.real is None:
            labels = np.searchsorted(self.among, batch.labels).astype(batch.labels.dtype)
            self.counter.add(logits[:, self.among], labels)
            return
        for index, answer in zip(batch.indices.tolist(), logits.argmax(1).tolist()):
            labels_now = self.real[index]
            self.right += (answer in labels_now, len(labels_now) > 0)

    def result(self) -> Dict[str, Any]:
        """What all ranks have counted, for ``--json``.

        Raises:
            TrainingError: when their images do not add up.
        """
        answer: Dict[str, Any] = {"name": self.benchmark.title, "published_top1": self.published}
        if self.real is not None:
            right, counted = sum_over_ranks(self.right).tolist()
            top1 = 100.0 * right / counted if counted else 0.0
            return {**answer, "top1": top1, "top1_correct": right, "total": counted}
        result = self.counter.result(self.total)
        return {**answer, **result.to_dict(), "among_classes": len(self.among)}


def line_of(result: Dict[str, Any]) -> str:
    """A line for the console of what ``Judge.result`` has."""
    top5 = f", Acc@5 {result['top5']:.3f}" if "top5" in result else ""
    parts = [f"{result['total']:,} images"]
    if result.get("among_classes", 1000) != 1000:
        parts.append(f"among {result['among_classes']} classes")
    if result["published_top1"] is not None:
        parts.append(f"published: {result['published_top1']:g}")
    return f"{result['name']} Acc@1 {result['top1']:.3f}{top5} ({', '.join(parts)})"


def load_images(root: str) -> ImageDataset:
    """The images of a benchmark: folders of classes in ``root`` itself, or in its ``val``."""
    path = Path(root)
    if path.is_dir() and not any(split_name(entry.name) for entry in path.iterdir()):
        return load_folder(path)
    return load_split(root, "val")


def read_real(path: str) -> List[Tuple[int, ...]]:
    """Of each of ImageNet's 50,000 validation images, all classes that are right for it.

    Raises:
        UsageError: when the file is not that of github.com/google-research/reassessed-imagenet.
    """
    expected = "expected real.json of github.com/google-research/reassessed-imagenet"
    try:
        if not Path(path).is_file():
            raise ValueError("no such file")
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        values = json.loads(data, parse_int=_class, parse_float=_no_class, parse_constant=_no_class)
    except OSError as error:
        raise UsageError(f"--real-labels {path}: {error.strerror or error}; {expected}") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--real-labels {path}: {reason}; {expected}") from None
    fits = isinstance(values, list) and all(
        isinstance(each, list) and all(type(label) is int for label in each) for each in values
    )
    if not fits or len(values) != 50_000:
        raise UsageError(f"--real-labels {path}: it is no list of 50,000 lists; {expected}")
    return [tuple(each) for each in values]


def _class(text: str) -> int:
    if len(text) > 3 or text[0] == "-":
        raise ValueError(f"{text[:20]} is no class from 0 to 999")
    return int(text)


def _no_class(text: str) -> int:
    raise ValueError(f"{text[:20]} is no class from 0 to 999")


def _labels_of(folder: ImageDataset, real: Sequence[Tuple[int, ...]]) -> List[Tuple[int, ...]]:
    """The labels of each image, which is known by the number in its file's name."""
    found = []
    for path in folder.paths:
        number = re.search(r"ILSVRC2012_val_(\d{8})\.\w+$", path)
        if number is None or not 0 < int(number[1]) <= len(real):
            raise DataError(
                f"{path}: ReaL labels are for ImageNet's validation images, which are called "
                "ILSVRC2012_val_00000001.JPEG to …50000.JPEG"
            )
        found.append(real[int(number[1]) - 1])
    return found


def _published(benchmark: Benchmark, network: Network) -> Optional[float]:
    """What the publisher states for the row whose weights these are, at this preparation."""
    row = BY_NAME.get(network.config.source)
    results = row.results if row else ()
    same = [result for result in results if result.preprocess == network.preprocess]
    return same[0].others.get(benchmark.key) if same else None
