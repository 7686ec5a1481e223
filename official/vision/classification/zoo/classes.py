"""Names of classes."""

from functools import lru_cache
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

_FILE = Path(__file__).resolve().parents[3] / "assets" / "imagenet1k_classes.txt"


@lru_cache(maxsize=None)
def imagenet_names() -> Dict[str, str]:
    """WordNet id to name of the 1,000 classes of ImageNet-1k, in the order of the logits."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def default_classes(num_classes: int) -> Optional[Tuple[str, ...]]:
    """Folder names of a network's classes where its weights do not tell: ImageNet's for 1,000."""
    return tuple(imagenet_names()) if num_classes == 1000 else None


def display_names(classes: Optional[Sequence[str]], num_classes: int) -> Tuple[str, ...]:
    """What to call each class: WordNet ids are translated, nameless classes numbered.

    A name may come from a file of unknown origin, so nothing in it can steer a terminal.
    """
    if classes is None:
        return tuple(f"class_{index}" for index in range(num_classes))
    return tuple(imagenet_names().get(name) or _printable(name) for name in classes)


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)
