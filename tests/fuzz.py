"""Changing bytes of files at random, for some seconds: what reads them gives a result or our error.

``RESNET_FUZZ_SECONDS`` says for how long (3 without it, 15 for each of four tests in CI), and
``RESNET_FUZZ_SEED`` where the random numbers begin. docs/security.md has figures.
"""

import os
import sys
import time
from typing import Iterator

import numpy as np

SECONDS = float(os.environ.get("RESNET_FUZZ_SECONDS", "3"))
LEAST = 20  # rounds, however busy the machine is


def rounds() -> Iterator[np.random.Generator]:
    """A generator for each round, until the time is over."""
    seed = int(os.environ.get("RESNET_FUZZ_SEED", "0"))
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or count <= LEAST:
        yield np.random.default_rng((seed, count))
        count += 1


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to five changes: a byte, four bytes, all bits set, a piece out, doubled or zeroed."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        span = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
        at, length = int(rng.integers(max(1, span))), int(rng.integers(1, 20))
        how = int(rng.integers(6))
        if how == 0:
            changed[at : at + 1] = rng.bytes(1)
        elif how == 1:
            changed[at : at + 4] = rng.bytes(4)
        elif how == 2:
            changed[at : at + 4] = b"\xff\xff\xff\xff"
        elif how == 3:
            del changed[at : at + length]
        elif how == 4:
            changed[at:at] = changed[at : at + length]
        else:
            changed[at : at + length] = bytes(length)
    return bytes(changed)


def tell(what: str, tried: int, refused: int, slowest: float) -> None:
    """The figures, where they were asked for."""
    if "RESNET_FUZZ_SECONDS" in os.environ:
        sys.stdout.write(
            f"\n{tried:,} changed {what}, {refused:,} refused, the slowest in {slowest:.2f} s\n"
        )
