"""What another framework's network computed, as kept for the tests.

A fixture holds no weights: they are ``seeded.tensors`` of the framework's own names and shapes.
"""

import gzip
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np

FOLDER = Path(__file__).resolve().parent / "fixtures"
SUFFIX = ".json.gz"


@dataclass(frozen=True)
class Fixture:
    """One network of one framework.

    Args:
        arch: the network's name in this project.
        source: what it is called there, and the versions that ran.
        shapes: of the tensors in its state dict, by the framework's names.
        logits: of ``seeded.images(height, width, count)``, by ``"height x width"``.
    """

    arch: str
    source: str
    shapes: Dict[str, List[int]]
    logits: Dict[str, List[List[float]]]

    @property
    def num_classes(self) -> int:
        return len(next(iter(self.logits.values()))[0])


def image_size(key: str) -> Tuple[int, int]:
    """Height and width from a key of ``Fixture.logits``."""
    height, width = key.split("x")
    return int(height), int(width)


def names() -> List[str]:
    """Every fixture there is."""
    return sorted(path.name[: -len(SUFFIX)] for path in FOLDER.glob(f"*{SUFFIX}"))


def load(name: str) -> Fixture:
    """Read a fixture."""
    return Fixture(**json.loads(gzip.decompress((FOLDER / f"{name}{SUFFIX}").read_bytes())))


def save(
    name: str,
    arch: str,
    source: str,
    shapes: Mapping[str, Sequence[int]],
    logits: Mapping[str, np.ndarray],
) -> None:
    """Write a fixture; the same content gives the same bytes.

    Raises:
        ValueError: when logits are not finite.
    """
    for key, value in logits.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} at {key}: logits are not finite")
    fixture = Fixture(
        arch,
        source,
        {key: list(map(int, shape)) for key, shape in shapes.items()},
        {key: [[float(f"{v:.9g}") for v in row] for row in value] for key, value in logits.items()},
    )
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(asdict(fixture), indent=0).encode()
    (FOLDER / f"{name}{SUFFIX}").write_bytes(gzip.compress(text, mtime=0))
