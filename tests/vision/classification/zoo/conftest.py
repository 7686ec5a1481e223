"""A small row of published weights, and a mirror to have them from."""

import pickle
from pathlib import Path

import megengine
import numpy as np
import pytest

from official.vision.classification.preprocess import PRESETS
from official.vision.classification.zoo import get_model
from official.vision.classification.zoo import rows as rows
from official.vision.classification.zoo.download import cached_path
from tests.servers import Server, whole


@pytest.fixture
def save(tmp_path):
    def save(value):
        path = tmp_path / "checkpoint"
        path.write_bytes(pickle.dumps(value, 4))
        return path

    return save


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture
def row(monkeypatch):
    """The default row of resnet20_cifar, known to the zoo; its digits are those of no file."""
    row = rows.Row(
        name="resnet20_cifar_test",
        arch="resnet20_cifar",
        dataset="CIFAR-10",
        num_classes=10,
        params=269_722,
        macs=40.6e6,
        top1=91.25,
        top5=None,
        url="https://weights.example.org/models/weights/resnet20_cifar_test_91250_5a5a5a5a.pkl",
        digest_prefix="5a5a5a5a",
        digest_is_sha256=False,
        licence="Apache-2.0",
        source="a test",
        preprocess=PRESETS["megengine"],
    )
    register(monkeypatch, row)
    return row


def register(monkeypatch, row):
    # Without what comes along, which would be the default for the same network.
    others = (each for each in rows.ROWS if each.name != row.name and each.shipped is None)
    monkeypatch.setattr(rows, "ROWS", (*others, row))
    monkeypatch.setitem(rows.BY_NAME, row.name, row)


@pytest.fixture
def known(monkeypatch):
    """Makes a changed row the one that the zoo knows."""
    return lambda row: register(monkeypatch, row)


class Mirror(Server):
    """The server behind RESNET_WEIGHTS_MIRROR, and the cache it fills."""

    def __init__(self, home: Path):
        super().__init__()
        self.cache = home / "serialized"

    def offer(self, row, answer):
        """Answer with bytes, or as a function of tests.servers says."""
        self.answers[row.url[len("https://weights.example.org") :]] = (
            whole(answer) if isinstance(answer, bytes) else answer
        )

    @property
    def cached(self):
        """Names in the cache; none when it does not exist."""
        return sorted(path.name for path in self.cache.glob("*"))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("MGE_HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "*")
    with Mirror(home) as mirror:
        monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", mirror.url + "/")
        yield mirror


@pytest.fixture
def cached(mirror, row):
    """Where the row's file goes."""
    return cached_path(row.url)


@pytest.fixture(scope="session")
def random_state():
    """Tensors for resnet20_cifar in which no two are alike, not even BN's."""
    random = np.random.RandomState(5)
    state = get_model("resnet20_cifar").state_dict()
    return {
        name: random.uniform(0.5, 1.5, value.shape).astype(np.float32)
        for name, value in state.items()
    }


@pytest.fixture
def pkl(tmp_path):
    """The bytes that megengine.save writes."""

    def save(value) -> bytes:
        path = tmp_path / "saved.pkl"
        megengine.save(value, str(path))
        data = path.read_bytes()
        path.unlink()
        return data

    return save


@pytest.fixture(scope="session")
def same():
    """Whether a network, or a state dict, has exactly these tensors."""

    def same(found, expected) -> bool:
        found = found if isinstance(found, dict) else found.state_dict()
        return found.keys() == expected.keys() and all(
            np.array_equal(found[name], expected[name]) for name in expected
        )

    return same
