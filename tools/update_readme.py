"""Write the tables of README.md and README.zh.md anew from the networks and the rows in official/.

    python tools/update_readme.py

A test fails when they differ.
"""

import argparse
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402
from official.vision.classification.resnet.complexity import Cost, complexity  # noqa: E402
from official.vision.classification.zoo import ARCHS, ROWS, Row  # noqa: E402
from official.vision.classification.zoo.models import image_size  # noqa: E402


@dataclass(frozen=True)
class Language:
    """The words of a README's tables.

    Args:
        networks, weights: the names of the columns.
        notes: translations of the rows' notes; empty for the language that the rows have.
    """

    networks: str
    weights: str
    notes: Dict[str, str] = field(default_factory=dict)


LANGUAGES: Dict[str, Language] = {
    "README.md": Language(
        networks="network | parameters (M) | multiply-adds (G) | at px",
        weights="row | network | data | params (M) | mult-adds (G) | px | top-1 (%) | top-5 (%) "
        "| by",
    ),
    "README.zh.md": Language(
        networks="网络 | 参数量 (M) | 乘加次数 (G) | 输入边长 (px)",
        weights="名称 | 网络 | 数据集 | 参数量 (M) | 乘加次数 (G) | px | top-1 (%) | top-5 (%) "
        "| 来源",
        notes={
            "MMPreTrain's table lists 2.18 M parameters, a slip for 21.80 M.": (
                "MMPreTrain 的表中写作 2.18 M，应为 21.80 M。"
            ),
            "Trained at 224 px; the paper's A3 trains at 160 px.": (
                "以 224 px 训练；论文中的 A3 以 160 px 训练。"
            ),
            'MMPreTrain\'s table says "From scratch"; its configuration starts from a network '
            "trained on ImageNet-21k by Alibaba MIIL.": (
                "MMPreTrain 的表中写作 “From scratch”；其配置文件实际从阿里巴巴 MIIL 在 "
                "ImageNet-21k 上训练的网络开始。"
            ),
            "Trained by torchvision.": "由 torchvision 训练。",
            "Trained by timm.": "由 timm 训练。",
            "MindCV's table lists 25.60 M parameters: it counts the moving statistics of the batch "
            "normalisations, which are not trained. Its model file points to other weights "
            "(3c2f143b, top-1 76.90).": (
                "MindCV 的表中写作 25.60 M：其中计入了批归一化的滑动统计量，而它们并不参与训练。"
                "其模型文件指向另一份权重（3c2f143b，top-1 76.90）。"
            ),
            "MindCV publishes the weights without an accuracy.": (
                "MindCV 发布了权重，但没有给出精度。"
            ),
            "Trained here, on CIFAR-10 saved as JPEG of quality 75; its accuracy is that on the "
            "test images in the same form, which cost other weights ten points: see "
            "docs/cifar.md.": (
                "由本项目在以 JPEG（质量 75）保存的 CIFAR-10 上训练；精度在同样形式的测试图像上"
                "测得，这种压缩会使其他权重损失约十个百分点：见 docs/cifar.md。"
            ),
        },
    ),
}


def networks(language: Language) -> Iterator[str]:
    """Every network and its size."""
    yield f"| {language.networks} |"
    yield "| --- | ---: | ---: | ---: |"
    for name in ARCHS:
        cost = _cost(name)
        yield (
            f"| `{name}` | {cost.params / 1e6:.2f} | {cost.macs / 1e9:.3g} | {image_size(name)} |"
        )


def weights(language: Language) -> Iterator[str]:
    """Every published row, what it is worth and where it is from."""
    notes = list(dict.fromkeys(row.note for row in ROWS if row.note))
    yield f"| {language.weights} |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for row in ROWS:
        mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
        yield (
            f"| [`{row.name}`]({row.url}){mark} | `{row.arch}` | {row.dataset} | "
            f"{row.params / 1e6:.2f} | {row.macs / 1e9:.3g} | {row.preprocess.crop} | "
            f"{_percent(row)} | {row.source} |"
        )
    yield ""
    for number, note in enumerate(notes, 1):
        yield f"[{number}] {language.notes[note] if language.notes else note}<br>"


@lru_cache(maxsize=None)
def _cost(arch: str) -> Cost:
    """Of a network that is built with its weights drawn, which takes a while."""
    return complexity(ARCHS[arch](), image_size(arch))


def _percent(row: Row) -> str:
    return f"{_number(row.top1)} | {_number(row.top5)}"


def _number(value: Optional[float]) -> str:
    """As published: MegEngine/Models gives three digits and the others two."""
    return "" if value is None else f"{value:.3f}".rstrip("0").ljust(5, "0")


TABLES: Dict[str, Callable[[Language], Iterator[str]]] = {"networks": networks, "weights": weights}


def with_tables(readme: str, language: Language) -> str:
    """A README's text with its tables, between marks, as they should be.

    Raises:
        ValueError: when a table's marks are not there once.
        KeyError: for a row's note that the language has no translation of.
    """
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = start + "\n".join(table(language)) + "\n" + end
        readme, count = re.subn(f"{start}.*{end}", lambda _, t=text: t, readme, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the marks of the table {name} are not there once")
    return readme


def main(argv: Sequence[str] = ()) -> int:
    """Rewrite both; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    use_device("cpu")
    for name, language in LANGUAGES.items():
        path = ROOT / name
        text = with_tables(path.read_text(encoding="utf-8"), language)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
