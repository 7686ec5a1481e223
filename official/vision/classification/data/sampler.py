"""Which images make up which batch: pure functions of (seed, epoch, step, rank).

Nothing here has a state, so there is nothing to save: a run that is resumed in the middle of an
epoch, or with another number of ranks, asks for the same batch and gets it.
"""

from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np

from ..errors import DataError

# What a generator is for comes first: numpy pads seeds with zeros, so (seed, epoch) alone would
# give the order of an epoch the very numbers of its image 0.
_ORDER, _SAMPLE, _MIX = 0, 1, 2


class BatchIndices(NamedTuple):
    """The images of one batch on one rank."""

    epoch: int
    indices: np.ndarray  # (B,) int64
    copies: np.ndarray  # (B,) int64, which repetition of its image each is, from 0


Key = Tuple[int, ...]  # of a generator


def sample_key(seed: int, epoch: int, index: int, copy: int = 0) -> Key:
    """What the randomness of repetition ``copy`` of image ``index`` in epoch ``epoch`` is of."""
    key = (seed, _SAMPLE, epoch, index)
    return (*key, copy) if copy else key


def generator_of(key: Key) -> np.random.Generator:
    """What default_rng returns, without its detours: there is one for every image."""
    return np.random.Generator(np.random.PCG64(key))


def sample_generator(seed: int, epoch: int, index: int, copy: int = 0) -> np.random.Generator:
    """The randomness of repetition ``copy`` of image ``index`` in epoch ``epoch``."""
    return generator_of(sample_key(seed, epoch, index, copy))


def mix_generator(seed: int, step: int, rank: int) -> np.random.Generator:
    """The randomness of how the batch of step ``step`` on rank ``rank`` is mixed."""
    return np.random.default_rng((seed, _MIX, step, rank))


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch ``epoch`` visits ``count`` images."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many images as ``labels`` has, in random order, and as many of each class.

    Where that leaves a remainder, it goes to classes drawn anew in each epoch. A class goes
    through its images in random order, again and again until it has enough.
    """
    generator = np.random.default_rng((seed, _ORDER, epoch))
    present = np.unique(labels)
    each, remainder = divmod(len(labels), len(present))
    favoured = set(generator.permutation(present)[:remainder].tolist())
    chosen = []
    for label in present.tolist():
        own = np.flatnonzero(labels == label)
        wanted = each + (label in favoured)
        rounds = -(-wanted // len(own))
        chosen.append(np.concatenate([generator.permutation(own) for _ in range(rounds)])[:wanted])
    return generator.permutation(np.concatenate(chosen))


def _occurrences(order: np.ndarray) -> np.ndarray:
    """How many times each element of ``order`` has come before."""
    by_value = np.argsort(order, kind="stable")
    values = order[by_value]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    found = np.empty(len(order), np.int64)
    found[by_value] = np.arange(len(values)) - np.repeat(starts, lengths)
    return found


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
    count: int,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    rank: int,
    ranks: int,
    repeats: int = 1,
    balance: Optional[np.ndarray] = None,
) -> Iterator[BatchIndices]:
    """The batches of steps ``first_step`` to ``last_step - 1`` for one rank.

    Step s takes ``batch_size * ranks`` images of its epoch's order, and each rank every
    ``ranks``-th of them, so the union over ranks depends on their product only.

    With ``repeats`` above 1 each image comes that many times in a row, augmented anew each time
    (repeated augmentation: Berman et al., arXiv:1902.05509). An epoch stays as long as it is, so
    it visits ``1 / repeats`` of the images, others each time.

    With ``balance``, the images' ``(N,)`` labels, an epoch has as many images of each class; an
    image that comes again is a copy of its own, augmented anew.
    """
    steps = steps_per_epoch(count, batch_size, ranks)
    total = batch_size * ranks
    order, earlier, ordered_epoch = np.empty(0, np.int64), np.empty(0, np.int64), -1
    for step in range(first_step, last_step):
        epoch, position = divmod(step, steps)
        if epoch != ordered_epoch:
            ordered_epoch = epoch
            if balance is None:
                order, earlier = epoch_order(count, seed, epoch), np.zeros(count, np.int64)
            else:
                order = balanced_order(balance, seed, epoch)
                earlier = _occurrences(order)
        mine = np.arange(position * total + rank, (position + 1) * total, ranks)
        places = mine // repeats
        yield BatchIndices(epoch, order[places], mine % repeats + repeats * earlier[places])


def eval_batches(count: int, batch_size: int, rank: int, ranks: int) -> Iterator[BatchIndices]:
    """Every image once over all ranks, none twice; the last batch may be short."""
    mine = np.arange(rank, count, ranks)
    for start in range(0, len(mine), batch_size):
        indices = mine[start : start + batch_size]
        yield BatchIndices(0, indices, np.zeros_like(indices))
