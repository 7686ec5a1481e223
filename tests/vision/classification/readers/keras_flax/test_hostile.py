"""Damaged files of Keras and flax: a WeightsError, or other numbers, at a bounded cost."""

import random
import time

import pytest

from official.vision.classification.errors import WeightsError
from tests.oracles.files import FOLDER
from tests.vision.classification.readers.handmade import FILES, memory_below
from tests.vision.classification.readers.keras_flax.trees import arrays_of

GOOD = {
    "h5": (FOLDER / "keras_3.h5").read_bytes(),
    "everything": (FILES / "everything.h5").read_bytes(),
    "keras": (FOLDER / "keras_3.keras").read_bytes(),
    "msgpack": (FOLDER / "flax_model.msgpack").read_bytes(),
}


def outcome(path, data):
    """Whether the file is refused; otherwise its tensors take no more than it has."""
    path.write_bytes(data)
    try:
        found = arrays_of(path)
    except WeightsError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        assert len(str(error)) < len(str(path)) + 400
        return True
    assert sum(array.nbytes for array in {id(a): a for a in found.values()}.values()) < 3 * len(
        data
    )
    return False


@pytest.mark.parametrize("kind", GOOD)
def test_changed_bytes(kind, tmp_path):
    """Where the structure is, not the numbers: those are few in the second file."""
    generator, refused, start = random.Random(7), 0, time.process_time()
    data = GOOD[kind]
    with memory_below(16 << 20):
        for _ in range(100):
            changed = bytearray(data)
            for _ in range(generator.choice([1, 1, 4])):
                at = generator.randrange(len(data) if generator.random() < 0.5 else 4096)
                at = min(at, len(data) - 1)
                changed[at] = generator.choice([0, 1, 255, generator.randrange(256)])
            refused += outcome(tmp_path / "w", bytes(changed))
    assert refused > 5
    assert time.process_time() - start < 60


@pytest.mark.parametrize("kind", GOOD)
def test_a_cut_file(kind, tmp_path):
    generator, data = random.Random(8), GOOD[kind]
    with memory_below(16 << 20):
        for _ in range(40):
            length = generator.randrange(16, len(data))
            refused = outcome(tmp_path / "w", data[:length])
            assert refused or kind in ("h5", "everything")  # whose end may be unused
