"""Write the tables of README.md anew from the cards in official/vision/classification/zoo.

    python tools/update_readme.py

A test fails when the two differ.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402
from official.vision.classification.resnet.complexity import complexity  # noqa: E402
from official.vision.classification.zoo import ARCHS, default_card  # noqa: E402

START, END = "<!-- table -->\n", "<!-- end of table -->"


def table() -> str:
    """Every network, and the accuracy of its weights where there are any."""
    lines = [
        "| network | params (M) | multiply-adds (G) | at px | weights | top-1 (%) | top-5 (%) |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, build in ARCHS.items():
        size = 32 if name.endswith("_cifar") else 224
        cost = complexity(build(), size)
        numbers = f"{cost.params / 1e6:.2f} | {cost.macs / 1e9:.3g} | {size}"
        card = default_card(name)
        weights = f"`{card.name}` | {card.top1:.3f} | {card.top5:.3f}" if card else "| |"
        lines.append(f"| `{name}` | {numbers} | {weights} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """The README's text with the table as it should be."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return before + START + table() + END + after


def main() -> int:
    """Rewrite README.md; return the exit code."""
    use_device("cpu")
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
