"""The page: what is counted, put into official/assets/report.html."""

import base64
import hashlib
import re
from pathlib import Path
from string import Template
from typing import Dict, Iterator, List, Sequence
from xml.etree.ElementTree import Element

import numpy as np

from ..calibration import Reliability
from .accuracy import ClassRow, wilson
from .answers import Answers
from .confusion import Confusion
from .figures import Picture
from .markup import tag, to_html

_TEMPLATE = Path(__file__).resolve().parents[4] / "assets" / "report.html"

MAX_ROWS = 1000  # of the table of classes
MAX_PAIRS = 20  # of the table of confusions
_DEEP = 0.85  # from this depth of blue on, numbers are written in white


def fill(parts: Dict[str, List[Element]]) -> bytes:
    """The page with these elements in the template's places."""
    template = _TEMPLATE.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", template, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {name: to_html(*elements) for name, elements in parts.items()}
    page = Template(template).substitute(values, script_digest=f"sha256-{digest}")
    return page.encode("utf-8")


def tiles(answers: Answers, loss: float, bins: Reliability) -> List[Element]:
    """The numbers that sum up a test."""
    total = len(answers)
    shares = [("Top-1 accuracy", answers.correct)]
    if answers.classes.shape[1] < answers.num_classes:
        shares.append((f"Top-{answers.classes.shape[1]} accuracy", answers.among_top))
    made = []
    for name, right in shares:
        count = int(right.sum())
        low, high = wilson(count, total)
        below = f"95 %: {100 * low:.2f} to {100 * high:.2f} %"
        made.append(_tile(name, f"{100 * count / total:.2f} %", below, f"{count:,} of {total:,}"))
    made.append(_tile("Cross-entropy", f"{loss:.4f}", "mean over all images"))
    made.append(_tile("Calibration error", f"{100 * bins.error:.2f} %", "expected (ECE)"))
    return made


def _tile(name: str, value: str, *below: str) -> Element:
    lines = [tag("span", line) for line in below]
    return tag("li", tag("h3", name), tag("strong", value), *lines)


def about_list(about: Dict[str, str]) -> List[Element]:
    """What was tested and on what."""
    return [tag("div", tag("dt", name), tag("dd", value)) for name, value in about.items()]


def class_table(rows: Sequence[ClassRow], names: Sequence[str], linked: set) -> List[Element]:
    """A line per class, the first 1,000 of them; those of ``linked`` lead to their pictures."""
    return [_class_line(row, names, row.index in linked) for row in rows[:MAX_ROWS]]


def _class_line(row: ClassRow, names: Sequence[str], linked: bool) -> Element:
    low, high = (100 * end for end in wilson(row.correct, row.images))
    share = 100 * row.accuracy
    name = names[row.index]
    label = tag("a", name, href=f"#class={row.index}") if linked else name
    bar = tag("span", class_="bar", style=f"--v:{share:.1f}%;--l:{low:.1f}%;--h:{high:.1f}%")
    wrong = row.mistaken
    return tag(
        "tr",
        tag("th", label, scope="row"),
        tag("td", f"{row.images:,}"),
        tag("td", f"{share:.1f} %"),
        tag("td", bar, class_="bars", title=f"95 %: {low:.1f} to {high:.1f} %"),
        tag("td", f"{100 * row.among_top / row.images:.1f} %"),
        tag("td", "–" if row.precision is None else f"{100 * row.precision:.1f} %"),
        tag("td", f"{names[wrong.guess]} ({wrong.count:,})" if wrong else "–", class_="text"),
    )


def pairs_table(pairs: Sequence[Confusion], names: Sequence[str]) -> List[Element]:
    """The most frequent confusions, a line each."""
    return [
        tag(
            "tr",
            tag("td", names[pair.label], class_="text"),
            tag("td", names[pair.guess], class_="text"),
            tag("td", f"{pair.count:,}"),
            tag("td", f"{100 * pair.count / pair.images:.1f} %"),
        )
        for pair in pairs[:MAX_PAIRS]
    ]


def heat_map(counts: np.ndarray, classes: Sequence[int], names: Sequence[str]) -> Element:
    """A table of ``confusion.matrix`` with a colour behind each number.

    Blue deepens with the share of a class's images that is right, orange with the share that is
    taken for another class, up to the largest such share. A last column, without colour, holds the
    classes that have none of their own, where an image was taken for one.
    """
    size = len(classes)
    columns = [names[index] for index in classes]
    if counts[:, size].any():
        columns.append("any other")
    else:
        counts = counts[:, :size]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    wrong[:, size:] = 0
    wrong /= wrong.max(initial=0.0) or 1.0
    head = [tag("th", tag("span", name), scope="col") for name in columns]
    body = [
        tag("tr", tag("th", names[index], scope="row"), *_cells(row, names[index], columns, *found))
        for row, (index, *found) in enumerate(zip(classes, counts, shares, wrong))
    ]
    return tag(
        "table",
        tag("caption", "Rows: the right class. Columns: the class that was named."),
        tag("thead", tag("tr", tag("td"), *head)),
        tag("tbody", *body),
        class_="matrix",
    )


def _cells(
    own: int,
    name: str,
    columns: Sequence[str],
    counts: np.ndarray,
    right: np.ndarray,
    wrong: np.ndarray,
) -> Iterator[Element]:
    """The cells of a row, whose diagonal is at ``own``, with the depth of either colour."""
    for column, count in enumerate(counts.tolist()):
        if not count:
            yield tag("td")
            continue
        depth = right[column] if column == own else wrong[column]
        kind = "wrong" if column != own else "right deep" if depth > _DEEP else "right"
        yield tag(
            "td",
            count,
            class_=kind,
            style=f"--d:{100 * depth:.0f}%",
            title=f"{name} → {columns[column]}",
        )


def bins_table(bins: Reliability) -> List[Element]:
    """The numbers behind the reliability diagram, a line per bin that has images."""
    rows = zip(bins.counts.tolist(), bins.correct.tolist(), bins.confidence.tolist())
    width = 100 / len(bins.counts)
    return [
        tag(
            "tr",
            tag("td", f"{width * place:.1f} to {width * (place + 1):.1f} %"),
            tag("td", f"{count:,}"),
            tag("td", f"{100 * confidence / count:.1f} %"),
            tag("td", f"{100 * right / count:.1f} %"),
        )
        for place, (count, right, confidence) in enumerate(rows)
        if count
    ]


def picture(drawn: Picture, alt: str, width: int) -> Element:
    """A picture that goes with the page's colours."""
    return tag(
        "picture",
        tag("source", srcset=drawn.dark, media="(prefers-color-scheme: dark)"),
        tag("img", src=drawn.light, alt=alt, width=width),
    )


def scrolled(table: Element) -> Element:
    """A wide table that scrolls by itself, also by the keyboard."""
    return tag("div", table, class_="scroll", tabindex=0)


def class_options(indices: Sequence[int], names: Sequence[str]) -> List[Element]:
    """What the filter offers, by name."""
    ordered = sorted(indices, key=lambda index: (names[index].lower(), index))
    return [tag("option", names[index], value=index) for index in ordered]
