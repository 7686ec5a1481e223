"""Arrows between the rooms go one way, and a room is no larger than a reader can oversee."""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "official" / "vision" / "classification"
LEVELS = {
    "ops": 0,
    "resnet": 1,
    "readers": 2,
    "zoo": 3,
    "data": 3,
    "distributed": 3,
    "engine": 4,
    "training": 5,
    "testing": 5,
    "prediction": 5,
    "export": 5,
    "commands": 6,
}


def arrows():
    """Each import from one room of another: the file, its room, the other room."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room, *inner = path.relative_to(PACKAGE).parts
        if not inner:
            continue  # the scripts, and what all rooms share
        package = path.relative_to(PACKAGE).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - (node.level - 1)]
                target = [*base, *(node.module or "").split(".")]
                if target[0] in LEVELS and target[0] != room:
                    yield path.relative_to(PACKAGE), room, target[0]


def test_every_room_is_known():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(LEVELS)
    assert sum(1 for _ in arrows()) > 100


def test_arrows_go_one_way():
    upward = [str(path) for path, room, other in arrows() if LEVELS[other] > LEVELS[room]]
    assert not upward
    pairs = {(room, other) for _, room, other in arrows() if LEVELS[other] == LEVELS[room]}
    assert not {(b, a) for a, b in pairs} & pairs  # nor back and forth between two of a level


def test_rooms_and_files_can_be_overseen():
    sizes = Counter(path.parent for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert max(sizes.values()) <= 16
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 410, path
