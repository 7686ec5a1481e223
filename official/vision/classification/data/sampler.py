"""Which images make up which batch: pure functions of (seed, epoch, step, rank).

Nothing here has a state, so there is nothing to save: a run that is resumed in the middle of an
epoch, or with another number of ranks, asks for the same batch and gets it.
"""

from typing import Iterator, NamedTuple

import numpy as np

from ..errors import DataError

# What a generator is for comes first: numpy pads seeds with zeros, so (seed, epoch) alone would
# give the order of an epoch the very numbers of its image 0.
_ORDER, _SAMPLE = 0, 1


class BatchIndices(NamedTuple):
    """The images of one batch on one rank."""

    epoch: int
    indices: np.ndarray  # (B,) int64


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The randomness of image ``index`` in epoch ``epoch``."""
    return np.random.default_rng((seed, _SAMPLE, epoch, index))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch ``epoch`` visits ``count`` images."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def steps_per_epoch(count: int, batch_size: int, ranks: int) -> int:
    """Whole batches in an epoch; what is left over is dropped and changes with every epoch.

    Raises:
        DataError: when there are not enough images for one batch.
    """
    steps = count // (batch_size * ranks)
    if steps == 0:
        raise DataError(
            f"{count} training images do not fill one batch of {batch_size} on each of "
            f"{ranks} device(s): lower --batch-size"
        )
    return steps


def train_batches(
    count: int, batch_size: int, seed: int, first_step: int, last_step: int, rank: int, ranks: int
) -> Iterator[BatchIndices]:
    """The batches of steps ``first_step`` to ``last_step - 1`` for one rank.

    Step s takes ``batch_size * ranks`` images of its epoch's order, and each rank every
    ``ranks``-th of them, so the union over ranks depends on their product only.
    """
    steps = steps_per_epoch(count, batch_size, ranks)
    total = batch_size * ranks
    order, ordered_epoch = np.empty(0, np.int64), -1
    for step in range(first_step, last_step):
        epoch, position = divmod(step, steps)
        if epoch != ordered_epoch:
            order, ordered_epoch = epoch_order(count, seed, epoch), epoch
        batch = order[position * total : (position + 1) * total]
        yield BatchIndices(epoch, batch[rank::ranks])


def eval_batches(count: int, batch_size: int, rank: int, ranks: int) -> Iterator[BatchIndices]:
    """Every image once over all ranks, none twice; the last batch may be short."""
    mine = np.arange(rank, count, ranks)
    for start in range(0, len(mine), batch_size):
        yield BatchIndices(0, mine[start : start + batch_size])
