"""The images of a run as batches: to train on, to test on, to take features from."""

from dataclasses import replace
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, Optional, Tuple

import numpy as np

from ..data.augment import TrainTransform
from ..data.dataset import ImageDataset
from ..data.loader import Loader, Transform, decoder_for
from ..data.sampler import BatchIndices, eval_batches, train_batches
from ..data.splits import TrainingData, open_training
from ..data.transforms import EvalTransform
from ..distributed.collectives import rank, world_size
from ..engine.recipe import Recipe
from ..engine.skipping import Skipped, without_broken

if TYPE_CHECKING:
    from .trainer import TrainConfig

EVAL_BATCH = 100


def open_images(config: "TrainConfig") -> Tuple[TrainingData, Dict[str, Skipped]]:
    """The data of a run, and what of it is left out by split: nothing without --skip-broken.

    Which images are held out for validation does not depend on those that are left out.
    """
    data = open_training(config.data, config.val_share, config.seed)
    if not config.linear_probe:
        decoder_for(data.train, config.recipe.augment)  # compiled now, not between two steps
    if not config.skip_broken:
        return data, {}
    needs = (config.recipe.preprocess, config.workers)
    train, left_out = without_broken(data.train, "training", *needs)
    skipped = {"train": left_out}
    val, skipped["val"] = without_broken(data.val, "validation", *needs)
    test = data.test
    if test is not None:
        test, skipped["test"] = without_broken(test, "test", *needs)
    lines = [*data.lines, *(line for one in skipped.values() for line in one.lines())]
    return replace(data, train=train, val=val, test=test, lines=lines), skipped


def counts_of(skipped: Dict[str, Skipped], *splits: str) -> Dict[str, int]:
    """For metrics.jsonl: how many images of these splits were left out, where any may be."""
    return {f"skipped_{name}": skipped[name].count for name in splits if name in skipped}


class RunImages:
    """The data of a run, and this rank's share of it in batches.

    Args:
        seed: of the run.
        workers: threads that prepare images.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, seed: int, workers: int):
        self.data = data
        self.recipe = recipe
        self.seed = seed
        self.workers = workers

    def class_weights(self) -> Optional[np.ndarray]:
        """``(C,)`` float32 of mean 1 over the training images; None where all count alike.

        The number of images over C times that of the class, which is scikit-learn's "balanced".
        """
        if self.recipe.loss.class_weights is None:
            return None
        train = self.data.train
        counts = np.bincount(train.labels, minlength=len(train.classes))
        return (len(train) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)

    def indices(self, first_step: int, last_step: int) -> Iterator[BatchIndices]:
        """Which images the steps from ``first_step`` to before ``last_step`` are trained on."""
        recipe = self.recipe
        return train_batches(
            len(self.data.train),
            recipe.batch_size * recipe.accumulate,
            self.seed,
            first_step,
            last_step,
            rank(),
            world_size(),
            recipe.augment.repeats,
            self.data.train.labels if recipe.sampling == "balanced" else None,
        )

    def training(self, first_step: int, last_step: int) -> Loader:
        """The batches of these steps."""
        recipe = self.recipe
        transform = TrainTransform(recipe.train_size, recipe.augment, recipe.preprocess)
        return self._loader(self.data.train, transform, self.indices(first_step, last_step))

    def testing(self, images: ImageDataset) -> Loader:
        """All of ``images``, each once over all ranks, prepared as for testing."""
        batches = eval_batches(len(images), EVAL_BATCH, rank(), world_size())
        return self._loader(images, EvalTransform(self.recipe.preprocess), batches)

    def _loader(
        self, images: ImageDataset, transform: Transform, batches: Iterable[BatchIndices]
    ) -> Loader:
        order = self.recipe.preprocess.order
        return Loader(images, transform, order, batches, self.seed, self.workers)
