"""Write the tables of README.md anew from the networks and the cards in official/.

    python tools/update_readme.py

A test fails when they differ.
"""

import re
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402
from official.vision.classification.resnet.complexity import complexity  # noqa: E402
from official.vision.classification.zoo import ARCHS, CARDS, Card  # noqa: E402
from official.vision.classification.zoo.models import image_size  # noqa: E402


def networks() -> Iterator[str]:
    """Every network and its size."""
    yield "| network | parameters (M) | multiply-adds (G) | at px |"
    yield "| --- | ---: | ---: | ---: |"
    for name, build in ARCHS.items():
        cost = complexity(build(), image_size(name))
        yield (
            f"| `{name}` | {cost.params / 1e6:.2f} | {cost.macs / 1e9:.3g} | {image_size(name)} |"
        )


def weights() -> Iterator[str]:
    """Every published row, what it is worth and where it is from."""
    notes = list(dict.fromkeys(card.note for card in CARDS if card.note))
    yield "| row | network | data | params (M) | mult-adds (G) | px | top-1 (%) | top-5 (%) | by |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for card in CARDS:
        mark = f" [{notes.index(card.note) + 1}]" if card.note else ""
        yield (
            f"| [`{card.name}`]({card.url}){mark} | `{card.arch}` | {card.dataset} | "
            f"{card.params / 1e6:.2f} | {card.macs / 1e9:.3g} | {card.preprocess.crop} | "
            f"{_percent(card)} | {card.source} |"
        )
    yield ""
    for number, note in enumerate(notes, 1):
        yield f"[{number}] {note}<br>"


def _percent(card: Card) -> str:
    return f"{_number(card.top1)} | {_number(card.top5)}"


def _number(value: Optional[float]) -> str:
    """As published: MegEngine/Models gives three digits and the others two."""
    return "" if value is None else f"{value:.3f}".rstrip("0").ljust(5, "0")


TABLES: Dict[str, Callable[[], Iterator[str]]] = {"networks": networks, "weights": weights}


def with_tables(readme: str) -> str:
    """The README's text with its tables, between marks, as they should be."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = start + "\n".join(table()) + "\n" + end
        readme, count = re.subn(f"{start}.*{end}", lambda _, t=text: t, readme, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"README.md: the marks of the table {name} are not there once")
    return readme


def main() -> int:
    """Rewrite README.md; return the exit code."""
    use_device("cpu")
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
