"""docs/zh/ says what docs/ says: a twin for every page, block by block, and none of them stale.

The first line of a Chinese page names the English one, and a digest of what was translated:

    <!-- of: docs/NAME.md, DIGEST -->

What a tool writes anew, figures and lists of networks, does not count for it.
"""

import hashlib
import re
from collections import Counter

import pytest

from tests import documents
from tests.documents import ROOT, TRANSLATIONS

PAGES = {english: chinese for chinese, english in TRANSLATIONS.items() if "docs/" in chinese}
TWINS = [(chinese, english) for english, chinese in PAGES.items()]
# `make benchmark` writes this page: the Chinese one explains its tables and leads to them.
MEASURED = "docs/benchmarks.md"
# One word for one thing. Where an English page has the first, its twin has the second.
TERMS = {
    "accurac(y|ies)": "准确率",
    "augment(ed|ation)": "增广",
    "calibration": "校准",
    "checkpoints?": "检查点",
    "digests?": "摘要",
    "drawn shapes": "合成数据集",
    "fine-tun(e|ed|ing)": "微调",
    "held out": "留出",
    "kernels?": "算子",
    "label smoothing|smoothed labels": "标签平滑",
    "linear probe": "线性探测",
    "preprocessing": "预处理",
    "recipes?": "训练方案",
    "running mean": "滑动平均",
    "warm-up": "预热",
    "weight decay": "权重衰减",
    "weights": "权重",
}

_WRITTEN = r"<!-- (networks|weights)\b[^\n]*-->.*?<!-- end of \1 -->"  # by tools/update_tables.py
_TABLE = re.compile(r"^\|.*\|\n", re.MULTILINE)
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def text_of(document):
    """The text without what tools write, and without the line that leads to the twin."""
    text = re.sub(_WRITTEN, "", documents.read(document), flags=re.DOTALL)
    text = text.replace(f"\n{_to_twin(document)}\n", "", 1)
    if document == MEASURED:
        text = re.sub(_NUMBER, "0", _TABLE.sub("", text))
    return text


def _to_twin(document):
    return f"**English** | [简体中文](zh/{document[len('docs/') :]})"


def digest(document):
    return hashlib.sha256(text_of(document).encode()).hexdigest()[:12]


def prose(document):
    """The text without blocks, without what tools write, and without the lines about the twin."""
    text = re.sub(_WRITTEN, "", documents.prose(document), flags=re.DOTALL)
    ours = r"^(<!-- of: .*|\[English\].*|\*\*English\*\* .*)\n"
    return re.sub(ours, "", text, flags=re.MULTILINE)


def headings(document):
    return re.findall(r"^(#+) (.*)$", documents.prose(document), re.MULTILINE)


def links(document):
    """Where links and pictures lead: the English page, and which of its headings."""
    found = []
    for picture, target in re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?://", target):
            found.append((picture, target, 0))
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / document).parent / name).resolve() if name else ROOT / document
        name = str(path.relative_to(ROOT))
        if name == TRANSLATIONS.get(document):  # a twin may lead to the tables of its own page
            continue
        if document in TRANSLATIONS and name in TRANSLATIONS.values():
            name += " instead of its twin"
        slugs = [documents.slug(heading) for _, heading in headings(name)] if anchor else []
        place = slugs.index(anchor) if anchor else 0
        found.append((picture, TRANSLATIONS.get(name, name), place))
    return sorted(found)


def numbers(text):
    """How often each is there; 1.28 million is 128 万."""
    text = re.sub(r"([\d.]+) million", lambda found: f"{float(found[1]) * 100:g} 万", text)
    return Counter(number.replace(",", "") for number in re.findall(_NUMBER, text))


def tables(document):
    """What must be the same in every row of every table: columns, code and numbers."""
    return [
        [(len(row), sorted(documents.spans(" ".join(row))), numbers(" ".join(row))) for row in rows]
        for rows in documents.tables(document)
        if TRANSLATIONS.get(document, document) != MEASURED and "sha256" not in rows[0]
    ]


def test_every_page_has_a_twin():
    english = {path.name for path in ROOT.glob("docs/*.md")}
    chinese = {path.name for path in ROOT.glob("docs/zh/*.md")}
    missing, alone = sorted(english - chinese), sorted(chinese - english)
    assert not missing, f"docs/zh/ lacks {', '.join(missing)}; CONTRIBUTING.md says how"
    assert not alone, f"docs/ has no {', '.join(alone)}, which docs/zh/ has"


@pytest.mark.parametrize(("chinese", "english"), TWINS)
def test_a_twin_is_not_stale(chinese, english):
    lines = documents.read(chinese).splitlines()
    assert lines[0] == f"<!-- of: {english}, {digest(english)} -->", (
        f"{chinese}: {english} has changed since; bring it up to date and put "
        f"{digest(english)} into its first line"
    )
    assert f"[English](../{english[len('docs/') :]}) | **简体中文**" in lines[:5]
    assert documents.read(english).splitlines()[2] == _to_twin(english)


@pytest.mark.parametrize(("chinese", "english"), TWINS)
def test_the_blocks_are_the_same_in_the_same_order(chinese, english):
    """Marks included, but not the reasons that these give."""
    there, here = (
        [(block.language, block.text, block.mark) for block in documents.blocks(document)]
        for document in (english, chinese)
    )
    assert here == there


@pytest.mark.parametrize(("chinese", "english"), TWINS)
def test_headings_links_and_pictures_are_the_same(chinese, english):
    there, here = ([level for level, _ in headings(page)] for page in (english, chinese))
    assert here == there
    assert links(chinese) == links(english)


@pytest.mark.parametrize(("chinese", "english"), TWINS)
def test_tables_have_the_same_rows_code_and_numbers(chinese, english):
    assert tables(chinese) == tables(english)


@pytest.mark.parametrize(("chinese", "english"), TWINS)
def test_the_text_has_the_same_code_and_numbers(chinese, english):
    """Whatever stands between backquotes, and every number that is written in digits."""
    there, here = (sorted(documents.spans(prose(document))) for document in (english, chinese))
    assert here == there
    if english != MEASURED:
        missing = numbers(prose(english)) - numbers(prose(chinese))
        assert not missing, f"{chinese} lacks the numbers {sorted(missing)}"


@pytest.mark.parametrize(("chinese", "english"), TWINS)
def test_the_text_is_chinese_and_in_the_usual_terms(chinese, english):
    there, here = (
        re.sub(r"`[^`\n]+`|[\w/-]+\.(?:md|ipynb)", "", prose(page)) for page in (english, chinese)
    )
    left = re.findall(r"(?:[A-Za-z'-]+,? ){7,}", re.sub(r'"[^"]+"', "", _TABLE.sub("", here)))
    assert not left, f"{chinese} is not translated here: {left}"
    for term, word in TERMS.items():
        if re.search(rf"\b({term})\b", there, re.IGNORECASE):
            assert word in here, f"{chinese} does not call it {word}"


def test_a_change_of_the_text_changes_the_digest_and_one_of_the_figures_does_not(
    monkeypatch, tmp_path
):
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(documents, "ROOT", tmp_path)

    def digest_of(name, text):
        (tmp_path / name).write_text(text, "utf-8")
        return digest(name)

    for name, figure, word in (
        ("docs/networks.md", (r"`resnet34`, ", ""), "bottlenecks"),
        ("docs/weights.md", (r"\| 70\.312 \|", "| 70.313 |"), "licence"),
        (MEASURED, (r"\d", "7"), "multithreaded"),
        ("docs/recipes.md", None, "half precision where it is safe"),
    ):
        text = (ROOT / name).read_text("utf-8")
        before = digest_of(name, text)
        assert word in text and digest_of(name, text.replace(word, "", 1)) != before
        if figure:
            changed = re.sub(*figure, text)
            assert changed != text and digest_of(name, changed) == before
