"""Weight files of every kind, changed at random: tensors, or our error, soon."""

import time
from pathlib import Path

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import read_weights
from tests import fuzz
from tests.vision.classification.readers.test_hostile import GOOD

ROOT = Path(__file__).resolve().parents[4]
FILES = (*(ROOT / "tests/oracles/files").iterdir(), *(Path(__file__).parent / "files").iterdir())


@pytest.mark.timeout(60 + 3 * fuzz.SECONDS)
def test_changed_bytes_of_weight_files(tmp_path, capfd):
    samples = [path.read_bytes() for path in sorted(FILES) if path.suffix in (".th", ".pth", ".pt")]
    samples += [path.read_bytes() for path in sorted(FILES) if path.suffix in (".ckpt",)]
    samples += [path.read_bytes() for path in sorted(FILES) if path.suffix == ".safetensors"]
    samples += list(GOOD.values())
    assert len(samples) > 15
    path = tmp_path / "weights"
    tried = refused = 0
    slowest = 0.0
    for rng in fuzz.rounds():
        data = fuzz.mutated(samples[int(rng.integers(len(samples)))], rng)
        path.write_bytes(data)
        tried += 1
        start = time.process_time()
        try:
            found = read_weights(path)
            size = sum(np.asarray(value).nbytes for value in found.tensors.values())
            assert size <= 16 * len(data)
        except WeightsError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        slowest = max(slowest, time.process_time() - start)
    capfd.readouterr()
    assert refused > 0 and slowest < 10
    with capfd.disabled():
        fuzz.tell("weight files", tried, refused, slowest)
