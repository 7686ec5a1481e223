"""Write the tables of documents anew from what official/ has.

Networks and the best weights in README.md and README.zh.md; the networks of each kind in
docs/networks.md and docs/zh/networks.md; all published weights in docs/weights.md; the keys of a
recipe in docs/recipes.md.

    python tools/update_tables.py

A test fails when they differ.
"""

import argparse
import json
import re
import sys
import textwrap
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Type

ROOT = Path(__file__).resolve().parents[1]
RECIPES = "docs/recipes.md"
WEIGHTS = "docs/weights.md"
NETWORKS = "docs/networks.md"
NETWORKS_ZH = "docs/zh/networks.md"
sys.path.insert(0, str(ROOT))

from official.vision.classification.engine.device import use_device  # noqa: E402
from official.vision.classification.engine.schema import Recipe  # noqa: E402
from official.vision.classification.preprocess import WORDS, Preprocess  # noqa: E402
from official.vision.classification.resnet.complexity import (  # noqa: E402
    Cost,
    complexity,
    without_weights,
)
from official.vision.classification.section import Section, sections  # noqa: E402
from official.vision.classification.zoo import ARCHS, ROWS, Row, default_row  # noqa: E402
from official.vision.classification.zoo.models import image_size  # noqa: E402
from official.vision.classification.zoo.rows.tables import OTHERS  # noqa: E402


@dataclass(frozen=True)
class Language:
    """The names of the columns of a README's tables."""

    networks: str
    weights: str


LANGUAGES: Dict[str, Language] = {
    "README.md": Language(
        networks="network | parameters (M) | multiply-adds (G) | at px",
        weights="network | data | `pretrained=True` | best three: top-1 (%), px",
    ),
    "README.zh.md": Language(
        networks="网络 | 参数量 (M) | 乘加次数 (G) | 输入边长 (px)",
        weights="网络 | 数据集 | `pretrained=True` | 准确率最高的三份权重：top-1 (%)、px",
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
    """The default and the best three rows of every network and data set."""
    yield f"| {language.weights} |"
    yield "| --- | --- | --- | --- |"
    groups: Dict[Tuple[str, str], List[Row]] = {}
    for row in sorted(ROWS, key=lambda row: list(ARCHS).index(row.arch)):
        groups.setdefault((row.arch, row.dataset), []).append(row)
    for (arch, dataset), rows in groups.items():
        default = default_row(arch)
        best = sorted(rows, key=lambda row: -(row.top1 or 0.0))[:3]
        yield (
            f"| `{arch}` | {dataset} | {_brief(default) if default in rows else ''} | "
            f"{'; '.join(_brief(row) + f', {row.preprocess.crop}' for row in best)} |"
        )


def _brief(row: Row) -> str:
    mark = "" if row.commercial else " †"
    return f"`{row.name}`{mark} {_number(row.top1)}".rstrip()


def all_weights() -> Iterator[str]:
    """Every published row and each of its results, for docs/weights.md."""
    notes = list(dict.fromkeys(row.note for row in ROWS if row.note))
    columns = (
        "row | network | data | params (M) | mult-adds (G) | px | resize | top-1 | top-5 | ReaL | "
        "V2 | A | R | Sketch | licence | by | sha256"
    )
    yield f"| {columns} |"
    yield f"| --- | --- | --- |{' ---: |' * 11} --- | --- | --- |"
    for row in ROWS:
        mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
        if default_row(row.arch) is row:
            mark += " *"
        known = f"{row.licence} | {row.source} | {_digest(row)}"
        for number, result in enumerate(row.results):
            url = row.url if row.shipped is None else f"../{row.url}"  # from docs/
            name = f"[`{row.name}`]({url}){mark}" if number == 0 else f"`{row.name}`"
            resize = str(result.preprocess.resize).strip("()").replace(", ", "×")
            others = " | ".join(_number(result.others.get(key)) for key in OTHERS)
            yield (
                f"| {name} | `{row.arch}` | {row.dataset} | {row.params / 1e6:.2f} | "
                f"{result.macs / 1e9:.3g} | {result.preprocess.crop} | {resize} | "
                f"{_number(result.top1)} | {_number(result.top5)} | {others} | {known} |"
            )
    yield ""
    for number, note in enumerate(notes, 1):
        yield f"[{number}] {note}<br>"


def _digest(row: Row) -> str:
    """What is known of the file's before it is there."""
    if not row.digest_prefix:
        return "not stated"
    digits = f"`{row.digest_prefix[:8]}`"
    if not row.digest_is_sha256:
        return f"{digits}, of what is not stated"
    return digits if len(row.digest_prefix) == 64 else f"{digits}, no more"


@lru_cache(maxsize=None)
def _cost(arch: str) -> Cost:
    with without_weights():
        return complexity(ARCHS[arch](), image_size(arch))


def _number(value: Optional[float]) -> str:
    """As published, with two digits at least."""
    return "" if value is None else re.sub(r"(\.\d\d)0$", r"\1", f"{value:.3f}")


TABLES: Dict[str, Callable[[Language], Iterator[str]]] = {"networks": networks, "weights": weights}


def with_tables(readme: str, language: Language) -> str:
    """A README's text with its tables, between marks, as they should be.

    Raises:
        ValueError: when a table's marks are not there once.
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


def with_names(document: str) -> str:
    """docs/networks.md or its twin with the networks of each section, by the pattern in its mark.

    Raises:
        ValueError: when a network belongs to no section, or to two.
    """
    places = {name: 0 for name in ARCHS}

    def listed(mark: "re.Match[str]") -> str:
        names = [name for name in ARCHS if re.fullmatch(mark["pattern"], name)]
        places.update({name: places[name] + 1 for name in names})
        lines = textwrap.fill(", ".join(f"`{name}`" for name in names), 104)
        return f"{mark['start']}{lines}\n{mark['end']}"

    mark = r"(?P<start><!-- networks: (?P<pattern>.*) -->\n)[^<]*(?P<end><!-- end of networks -->)"
    document = re.sub(mark, listed, document)
    wrong = [name for name, count in places.items() if count != 1]
    if wrong:
        raise ValueError(f"{NETWORKS}: no section, or more than one, has {', '.join(wrong)}")
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


def _rewrite(name: str, change: Callable[[str], str]) -> None:
    path = ROOT / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Rewrite all; return the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    use_device("cpu")
    for name, language in LANGUAGES.items():
        _rewrite(name, partial(with_tables, language=language))
    _rewrite(WEIGHTS, lambda text: between_marks(text, "weights", all_weights()))
    for name in (NETWORKS, NETWORKS_ZH):
        _rewrite(name, with_names)
    _rewrite(RECIPES, with_keys)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
