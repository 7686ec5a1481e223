"""Write the tables of documents anew from what official/ has.

Networks and published rows in README.md and README.zh.md; the keys of a recipe in docs/recipes.md.

    python tools/update_tables.py

A test fails when they differ.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Sequence, Type

ROOT = Path(__file__).resolve().parents[1]
RECIPES = "docs/recipes.md"
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402
from official.vision.classification.engine.schema import Recipe  # noqa: E402
from official.vision.classification.preprocess import WORDS, Preprocess  # noqa: E402
from official.vision.classification.resnet.complexity import Cost, complexity  # noqa: E402
from official.vision.classification.section import Section, sections  # noqa: E402
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
        readme = between_marks(readme, name, table(language))
    return readme


def between_marks(document: str, name: str, lines: Iterable[str]) -> str:
    """A document with ``lines`` between the marks of that name.

    Raises:
        ValueError: when the marks are not there once.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = start + "\n".join(lines) + "\n" + end
    document, count = re.subn(f"{start}.*{end}", lambda _: text, document, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the marks of the table {name} are not there once")
    return document


def with_keys(document: str) -> str:
    """docs/recipes.md with its tables of keys.

    Raises:
        ValueError: when a table's marks are not there once.
    """
    inner = sections(Recipe)
    alone = [name for name in Recipe.model_fields if name not in (*inner, "preprocess")]
    document = between_marks(document, "keys", key_table(keys(Recipe, only=alone)))
    for name in inner:
        rows = key_table(keys(Recipe, only=[name]))
        document = between_marks(document, f"keys of {name}", rows)
    return between_marks(document, "keys of preprocess", key_table(preprocess_keys()))


def key_table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The rows: key, values, default, meaning."""
    yield "| key | values | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def keys(
    section: Type[Section], prefix: str = "", only: Sequence[str] = ()
) -> Iterator[Sequence[str]]:
    """Every key of a section and of those within it; of these themselves, if they may be off."""
    schema = section.model_json_schema()
    inner = sections(section)
    for name, key in schema["properties"].items():
        if only and name not in only:
            continue
        if name not in inner or "description" in key:
            kinds = " and ".join(f"`{kind}`" for kind in section._of_kind.get(name, ()))
            meaning = f"of {kinds}: {key['description']}" if kinds else key["description"]
            yield f"`{prefix}{name}`", allowed(key), _default(section, name), meaning
        if name in inner:
            yield from keys(inner[name], f"{prefix}{name}.")


def preprocess_keys() -> Iterator[Sequence[str]]:
    """The keys of ``preprocess``, which is no section: it also travels with weights."""
    for each in fields(Preprocess):
        name, how = each.name, each.metadata
        values = how["values"] or _listed(f"`{word}`" for word in WORDS[name])
        yield f"`preprocess.{name}`", values, f"`{_yaml(each.default)}`", how["description"]


def allowed(key: Dict[str, Any]) -> str:
    """The values that a key's JSON schema allows, in words."""
    if "values" in key:
        return key["values"]
    if "anyOf" in key:
        return _listed(map(allowed, key["anyOf"]))
    if "enum" in key or "const" in key:
        return _listed(f"`{word}`" for word in key.get("enum", [key.get("const")]))
    if "$ref" in key:
        return "keys"
    if key["type"] in ("integer", "number"):
        return _range(key)
    return {"null": "`null`", "boolean": "`true` or `false`"}[key["type"]]


def _range(key: Dict[str, Any]) -> str:
    limits = [
        f"{word} {key[name]:g}"
        for name, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if name in key and key[name] != 10**9  # which only keeps nonsense out
    ]
    to = " to " if "minimum" in key else ", up to "
    limit = ", ".join(limits).replace(", to ", to)
    return f"{'an integer' if key['type'] == 'integer' else 'a number'} {limit}"


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _default(section: Type[Section], name: str) -> str:
    key = section.model_fields[name]
    off = isinstance(key.default, Section)  # of the sections that have a line, amp alone
    return "required" if key.is_required() else f"`{_yaml(False if off else key.default)}`"


def _yaml(value: Any) -> str:
    """As one writes it in a recipe: 1.0e-08 is 1.0e-8, and 0.0 is 0."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if value == int(value) else re.sub(r"^(\d)e-0?", r"\1.0e-", repr(value))
    return value if isinstance(value, str) else json.dumps(value)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Rewrite all; return the exit code."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args(argv)
    use_device("cpu")
    for name, language in LANGUAGES.items():
        path = ROOT / name
        text = with_tables(path.read_text(encoding="utf-8"), language)
        path.write_text(text, encoding="utf-8")
    path = ROOT / RECIPES
    path.write_text(with_keys(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
