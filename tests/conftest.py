"""All tests run on the CPU, on the device that the project itself uses there."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Callable

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # the workers of pytest-xdist share the cores
for variable in [*os.environ]:  # of a job of Slurm or torchrun that runs the tests
    if variable.startswith("SLURM_") or variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        del os.environ[variable]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402


def pytest_configure() -> None:
    use_device("cpu")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what ends in "&"
        signal.signal(signal.SIGINT, signal.default_int_handler)


CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20x20 pictures told apart by their colour: 24 to train on, 15 to test."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for channel, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 120, (20, 20, 3), np.uint8)
                image[:, :, channel] += 100
                cv2.imwrite(str(folder / f"{index}.png"), image)
    return root


@pytest.fixture()
def port() -> int:
    """One that is free."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture()
def tiny_recipe(tmp_path: Path) -> Path:
    """Four epochs of three steps on 16x16 pixels."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "epochs: 4\n"
        "batch_size: 8\n"
        "optimizer: {lr: 0.05, momentum: 0.9, weight_decay: 0.0001}\n"
        "schedule: {milestones: [3], warmup_epochs: 1}\n"
        "augment: {crop: padded, padding: 2, jitter: 0.2}\n"
        "preprocess: {order: BGR, mean: [128, 128, 128], std: [64, 64, 64], resize: 16, crop: 16}\n"
    )
    return path


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.CompletedProcess]:
    """Runs one of the project's scripts as a user does: ``script("train.py", "--data", ...)``.

    Its stderr is without the lines that importing MegEngine prints by itself, as the wheel for
    Python 3.8 does.
    """

    def start(*command: str, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)

    noise = set(start(sys.executable, "-c", "import megengine").stderr.splitlines())

    def run(name: str, *arguments: object, **options: object) -> subprocess.CompletedProcess:
        done = start(sys.executable, str(ROOT / name), *map(str, arguments), **options)
        lines = [line for line in done.stderr.splitlines(keepends=True) if line[:-1] not in noise]
        done.stderr = "".join(lines)
        return done

    return run
