"""Two tests side by side."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from official.vision.classification.commands import compare_runs
from official.vision.classification.errors import UsageError
from official.vision.classification.testing.report.comparison import mcnemar, read_tested
from tests.vision.classification.testing.report.reports import Page, draw_folder, logits_of, write

NAMES = ("cat", "dog", "<b>bird</b>")


def exact(first, second):
    count, least = first + second, min(first, second)
    return min(1, 2 * Fraction(sum(comb(count, k) for k in range(least + 1)), 2**count))


@pytest.mark.parametrize(
    "counts", [(0, 0), (1, 0), (0, 5), (3, 3), (12, 30), (100, 70), (2, 900), (1500, 1400)]
)
def test_mcnemar(counts):
    assert mcnemar(*counts) == pytest.approx(float(exact(*counts)), rel=1e-9)
    assert mcnemar(*counts) == mcnemar(*reversed(counts))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Reports of two networks on the same ninety images, and the numbers behind them."""
    root = tmp_path_factory.mktemp("two")
    folder = draw_folder(root / "val", NAMES, 30)
    guesses = []
    for name, seed, skill in (("a", 0, 1.0), ("b", 1, 2.0)):
        logits, _ = logits_of(len(folder), 3, seed=seed, skill=0.0)
        logits[np.arange(90), folder.labels] += skill
        guesses.append(logits.argmax(1))
        write(root / name, folder, logits)
    return root, folder, guesses


def page_of(root, *more):
    out = root / "both.html"
    words = [str(root / "a"), str(root / "b"), "--html", str(out), "--lang", "en", *more]
    assert compare_runs.main(words) == 0
    return Page(out)


def test_the_numbers(two, capsys):
    root, folder, guesses = two
    first, second = (found == folder.labels for found in guesses)
    page = page_of(root)
    assert capsys.readouterr().out.endswith(f"page: {root / 'both.html'}\n")
    counts, classes = page.tables
    expected = [first & second, first & ~second, ~first & second, ~first & ~second]
    assert [int(row[1]) for row in counts] == [int(found.sum()) for found in expected]
    tiles = [e["text"] for e in page.all("li") if "class" not in e["attributes"]][:3]
    assert tiles[0].startswith(f"a{100 * first.mean():.2f} %")
    assert tiles[1].startswith(f"b{100 * second.mean():.2f} %")
    assert f"{100 * (second.mean() - first.mean()):+.2f}" in tiles[2]
    p = float(exact(int(expected[1].sum()), int(expected[2].sum())))
    assert f"p = {p:.4f}" in tiles[2]
    for row in classes[1:]:
        own = folder.labels == folder.classes.index(row[0].replace("</", "<∕"))
        assert row[1:4] == ["30", *(f"{100 * one[own].mean():.1f} %" for one in (first, second))]
        assert row[4] == f"{100 * (second[own].mean() - first[own].mean()):+.1f}"
    gains = [abs(float(row[4])) for row in classes[1:]]
    assert gains == sorted(gains, reverse=True)


def test_the_pictures(two):
    root, folder, guesses = two
    first, second = (found == folder.labels for found in guesses)
    page = page_of(root)
    cards = [e for e in page.all("li") if "data-label" in e["attributes"]]
    shown = [min(24, int(found.sum())) for found in (first & ~second, ~first & second)]
    assert len(cards) == sum(shown)
    for place, card in enumerate(cards):
        signs = [letter for letter in card["text"] if letter in "✓✗"]
        assert signs == (["✓", "✗"] if place < shown[0] else ["✗", "✓"])
    assert not page.all("b")
    assert str(root) not in (root / "both.html").read_text("utf-8")


def test_others_than_two_tests_of_the_same_images(two, tmp_path, capsys):
    root, folder, _ = two
    other = draw_folder(tmp_path / "val", NAMES, 5)
    write(tmp_path / "c", other, logits_of(15, 3)[0])
    for words, message in (
        ([root / "a", tmp_path / "c"], "a and c were not tested on the same images"),
        ([root / "a"], "compares two tests, and 1 are given"),
        ([root / "a", tmp_path], "metrics.jsonl: No such file"),
    ):
        target = tmp_path / "out.html"
        assert compare_runs.main([*map(str, words), "--html", str(target)]) == 2
        assert message in capsys.readouterr().err
        assert not target.exists()


@pytest.mark.parametrize("content", ["", "image,true_class\nx,y\n", "image\n", "\0\0"])
def test_a_table_of_others(tmp_path, content):
    (tmp_path / "predictions.csv").write_text(content)
    with pytest.raises(UsageError, match="predictions.csv: (is not|has no)"):
        read_tested(tmp_path, "x")
