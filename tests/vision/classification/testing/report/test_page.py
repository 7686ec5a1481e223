import base64
import csv
import hashlib
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import cv2
import jinja2
import numpy as np
import pytest

from official.vision.classification.data.dataset import ImageDataset
from official.vision.classification.engine.class_scores import ClassScores
from official.vision.classification.errors import DataError, UserError
from official.vision.classification.page import render
from official.vision.classification.testing.calibration import reliability
from official.vision.classification.testing.report import figures
from official.vision.classification.testing.report.page import unique_names, write_report
from official.vision.classification.testing.report.statistics import wilson
from official.vision.classification.zoo.classes import dataset_classes
from tests.vision.classification.testing.report.reports import (
    HOSTILE,
    Page,
    draw_folder,
    logits_of,
    result_on,
    write,
)


class Noise(ImageDataset):
    """Images that are no files, and that remember which of them were asked for."""

    asked = []

    def read(self, index):
        self.asked.append(index)
        return np.random.default_rng(index).integers(0, 255, (96, 128, 3), np.uint8)


def shown(path, folder):
    """A path as cards show it: below the data set."""
    return str(Path(path).relative_to(folder.root)).replace("\t", r"\t")


def noise(tmp_path, labels, classes):
    Noise.asked = []
    paths = tuple(f"{tmp_path}/{number}.png" for number in range(len(labels)))
    return Noise(tmp_path, classes, paths, labels)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A report on four classes of twenty images with the worst of names, its logits and labels."""
    root = tmp_path_factory.mktemp("hostile")
    folder = draw_folder(root / "val", HOSTILE, 20)
    logits, _ = logits_of(len(folder), 4, skill=0.0)
    logits[np.arange(80), folder.labels] += 1
    path = write(root / "report", folder, logits, remarks=["remark <1>"])
    return path, folder, logits


def test_nothing_comes_from_elsewhere(hostile):
    path, _, _ = hostile
    text, page = path.read_text(encoding="utf-8"), Page(path)
    for element in page.elements:
        for name, value in element["attributes"].items():
            if name in ("src", "srcset", "href", "action", "data", "poster", "background"):
                assert value.startswith(("data:image/", "#")), (element["name"], name)
            assert not name.startswith("on")
    assert not page.all("link") and not page.all("iframe")
    (style,) = page.all("style")
    assert "url(" not in style["text"] and "@import" not in style["text"]
    assert "$" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    assert policy["attributes"]["content"].startswith("default-src 'none'; img-src data:; ")


def test_foreign_names_are_text(hostile):
    path, folder, _ = hostile
    page = Page(path)
    assert len(page.all("script")) == 1
    assert all(e["attributes"]["src"].startswith("data:image/") for e in page.all("img"))
    assert not page.all("b") and not page.all("data")
    assert "<script>document.title = 1<∕script>" in {e["text"] for e in page.all("option")}
    assert {e["text"] for e in page.all("option")} >= {
        "=cmd|' '!A1",
        '"><img src=x onerror=a()>',
        r"猫\t&amp;",
    }
    assert {e["text"] for e in page.all("p", class_="file")} <= {f"{i}<b>&.png" for i in range(20)}
    titles = {e["attributes"]["title"] for e in page.all("p", class_="file")}
    assert titles <= {shown(path, folder) for path in folder.paths}
    assert str(folder.root) not in path.read_text(encoding="utf-8")
    (title,) = page.all("title")
    assert title["text"] == "Test report: a network on <data>"
    assert [e["text"] for e in page.all("dd")] == ["<w>.pkl"]
    assert any(e["text"] == "remark <1>" for e in page.all("p"))


def test_tables_are_those_of_the_answers(hostile):
    path, folder, logits = hostile
    guesses = logits.argmax(1)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (folder.labels, guesses), 1)
    names = [name.replace("\t", r"\t") for name in folder.classes]
    classes, cells, pairs, bins = Page(path).tables

    assert cells[0] == ["", *names]
    assert [row[0] for row in cells[1:]] == names
    found = [[int(value or 0) for value in row[1:]] for row in cells[1:]]
    assert found == counts.tolist()

    recall, rows = counts.diagonal() / 20, classes[1:]
    for index, row in zip(np.argsort(recall, kind="stable"), rows):
        right = counts[index, index]
        assert row[:4] == [names[index], "20", str(right), f"{100 * recall[index]:.1f} %"]
        assert row[4:6] == ["", "100.0 %"]
        precision = right / counts[:, index].sum()
        f1 = 2 * precision * recall[index] / (precision + recall[index])
        assert row[6:8] == [f"{100 * precision:.1f} %", f"{100 * f1:.1f} %"]
        wrong = counts[index] * (np.arange(4) != index)
        assert row[8].endswith(f" ({wrong.max()})")
    assert len(rows) == 4

    wrong = counts - np.diag(counts.diagonal())
    assert len(pairs) - 1 == (wrong > 0).sum()
    for label, guess, count, share in pairs[1:]:
        assert int(count) == wrong[names.index(label), names.index(guess)]
        assert share == f"{100 * int(count) / 20:.1f} %"
    assert [int(row[2]) for row in pairs[1:]] == sorted(wrong[wrong > 0].tolist(), reverse=True)
    assert sum(int(row[1]) for row in bins[1:]) == 80


def test_colours_of_the_matrix(hostile):
    """Blue by the share of the row, orange by that over the largest of the wrong ones."""
    path, folder, logits = hostile
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (folder.labels, logits.argmax(1)), 1)
    wrong = counts - np.diag(counts.diagonal())
    cells = iter(e for e in Page(path).all("td") if "--d" in e["attributes"].get("style", ""))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            cell = next(cells)
            depth = count / 20 if row == column else count / wrong.max()
            assert cell["text"] == str(count)
            assert cell["attributes"]["class"].split()[0] == ("right" if row == column else "wrong")
            assert cell["attributes"]["style"] == f"--d:{100 * depth:.0f}%"
    assert next(cells, None) is None


def test_the_sum_of_it(hostile):
    path, folder, logits = hostile
    right = int((logits.argmax(1) == folder.labels).sum())
    tiles = [e["text"] for e in Page(path).all("li") if "class" not in e["attributes"]][:4]
    assert f"{100 * right / 80:.2f} %" in tiles[0] and f"{right} of 80" in tiles[0]
    low, high = wilson(right, 80)
    assert f"{100 * low:.2f} – {100 * high:.2f} %" in tiles[0]
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (folder.labels, logits.argmax(1)), 1)
    scores = ClassScores(counts).means()  # top-5 of four classes says nothing
    assert tiles[1].startswith(f"Macro F1{scores['macro_f1']:.2f} %mean over 4 classes")
    assert tiles[1].endswith(f"balanced accuracy {scores['balanced_accuracy']:.2f} %")
    assert tiles[2].strip().startswith("Cross-entropy1.2500")
    assert tiles[3].startswith("Calibration error")


def test_cards_tell_what_was_said(hostile):
    path, folder, logits = hostile
    exact = np.exp(logits.astype(float))
    exact /= exact.sum(1, keepdims=True)
    numbers = {shown(path, folder): row for row, path in enumerate(folder.paths)}
    cards = [e for e in Page(path).all("li") if "data-label" in e["attributes"]]
    wrong = np.flatnonzero(logits.argmax(1) != folder.labels)
    # Four classes, and room for all of them.
    assert len(cards) == len(wrong) + 80 + (80 - len(wrong))
    files = [e["attributes"]["title"] for e in Page(path).all("p", class_="file")]
    assert len(files) == len(cards)
    for place, (card, file) in enumerate(zip(cards, files)):
        row = numbers[file]
        label, guess = int(folder.labels[row]), int(logits[row].argmax())
        assert card["attributes"]["data-label"] == str(label)
        assert card["attributes"]["data-guess"] == str(guess)
        starts = (0, len(wrong), len(wrong) + 80)
        further = place - max(start for start in starts if start <= place) >= 24
        assert card["attributes"].get("class") == ("further" if further else None)
        text = " ".join(card["text"].split())
        assert text.startswith("✓" if label == guess else "✗")
        for p in np.sort(exact[row])[::-1][:3]:
            assert f"{100 * p:.1f} %" in text
    first = [numbers[file] for file in files[:24]]
    assert first == sorted(wrong, key=lambda row: -exact[row].max())[:24]
    entropy = -(exact * np.log(exact)).sum(1)
    uncertain = [numbers[file] for file in files[len(wrong) :]][:24]
    assert uncertain == np.argsort(-entropy).tolist()[:24]
    sure = [numbers[file] for file in files[len(wrong) + 80 :]][:24]
    right = np.flatnonzero(logits.argmax(1) == folder.labels)
    best = [
        max(right[folder.labels[right] == label], key=lambda row: exact[row].max())
        for label in range(4)
    ]
    assert sorted(sure[:4]) == sorted(best)  # one of each class
    others = sorted(set(right) - set(best), key=lambda row: -exact[row].max())
    assert sure[4:] == others[:20]


def test_every_picture_says_what_it_is(hostile):
    images = Page(hostile[0]).all("img")
    assert len(images) > 80 and all(e["attributes"]["alt"] for e in images)
    (diagram,) = [e for e in images if e["attributes"]["alt"].startswith("Reliability diagram")]
    assert "image/svg+xml" in diagram["attributes"]["src"]
    (dark,) = Page(hostile[0]).all("source")
    assert dark["attributes"]["media"] == "screen and (prefers-color-scheme: dark)"
    assert dark["attributes"]["srcset"].startswith("data:image/svg+xml")
    assert dark["attributes"]["srcset"] != diagram["attributes"]["src"]


def test_bars_and_links_of_the_classes(hostile):
    path, folder, logits = hostile
    page = Page(path)
    right = np.bincount(folder.labels[logits.argmax(1) == folder.labels], minlength=4)
    bars = page.all("span", class_="bar")
    links = [e for e in page.all("a") if e["attributes"]["href"].startswith("#class=")]
    for index, bar, link in zip(np.argsort(right, kind="stable").tolist(), bars, links):
        low, high = wilson(int(right[index]), 20)
        share = 100 * right[index] / 20
        style = f"--v:{share:.1f}%;--l:{100 * low:.1f}%;--h:{100 * high:.1f}%"
        assert bar["attributes"]["style"] == style
        name = folder.classes[index].replace("\t", r"\t")
        assert unquote(link["attributes"]["href"]) in (
            f"#class={folder.classes[index]}",
            f"#class={name}",
        )
        assert link["text"] == name
    assert len(bars) == 4


def test_many_classes(tmp_path):
    """A thousand, of which nine hundred have images: all stays small, and can be read."""
    logits, labels = logits_of(4000, 1000, skill=3.0)
    labels[labels >= 900] = 0
    folder = noise(tmp_path, labels, dataset_classes("ImageNet-1k"))
    path = write(tmp_path / "report", folder, logits)
    page = Page(path)
    classes, cells, pairs, _ = page.tables
    assert len(classes) == 901 and len(pairs) == 21
    assert not any("_" in row[0] for row in classes)  # lines break between words
    assert b",American_chameleon," in (path.parent / "predictions.csv").read_bytes()
    assert 10 <= len(cells) - 1 <= 24 and cells[0][-1] == "any other"
    for name, *row in cells[1:]:
        (images,) = [line[1] for line in classes if line[0] == name] or ["0"]
        assert sum(int(value or 0) for value in row) == int(images.replace(",", ""))
    others = [e for e in page.all("td") if e["attributes"].get("title", "").endswith("any other")]
    assert len(others) > 5 and all(e["attributes"]["style"] == "--d:0%" for e in others)
    assert any("image here: 100 of the" in e["text"] for e in page.all("p"))
    alts = [e["attributes"]["alt"] for e in page.all("img")]
    assert any("among the 1,000 classes" in alt for alt in alts)
    assert 72 <= len(Noise.asked) <= 72 + 80 + 48  # with those of the listed confusions
    assert path.stat().st_size < 2_500_000
    linked = {e["attributes"]["href"] for e in page.all("a")} - {
        *("#classes", "#confusions", "#calibration", "#pictures", "#about")
    }
    offered = {f"#class={quote(e['text'], safe='/')}" for e in page.all("option")[1:]}
    classes = {link for link in linked if link.startswith("#class=")}
    assert classes <= offered and len(offered) <= 300
    assert len(linked - classes) >= 20  # each listed confusion has its pictures


def test_more_classes_than_a_page_holds(tmp_path):
    classes = tuple(f"c{number}" for number in range(1200))
    logits, labels = logits_of(2400, 1200, skill=4.0)
    page = Page(write(tmp_path / "report", noise(tmp_path, labels, classes), logits))
    assert len(page.tables[0]) == 1001
    assert [e["text"] for e in page.all("p")].count("Left out: 200 of the highest accuracy.") == 1


@pytest.mark.parametrize("classes", [4, 40])
def test_no_image_is_named_wrong(tmp_path, classes):
    labels = np.arange(80, dtype=np.int32) % classes
    logits = 9 * np.eye(classes, dtype=np.float32)[labels]
    names = tuple(f"c{number}" for number in range(classes))
    path = write(tmp_path / "report", noise(tmp_path, labels, names), logits)
    assert "No image is classified wrong." in path.read_text(encoding="utf-8")
    assert Page(path).tables[0][1][3] == "100.0 %"


def test_one_image(tmp_path):
    folder = noise(tmp_path, np.array([1], np.int32), ("a", "b"))
    path = write(tmp_path / "report", folder, np.array([[1, 0]], np.float32))
    assert Page(path).tables[1] == [["", "a", "b"], ["a", "", ""], ["b", "1", ""]]


def test_two_files_and_nothing_else(hostile):
    path, folder, _ = hostile
    assert sorted(p.name for p in path.parent.iterdir()) == ["predictions.csv", "report.html"]
    with (path.parent / "predictions.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [row["image"] for row in rows] == list(folder.paths)
    assert {row["true_class"] for row in rows} >= {"'=cmd|' '!A1"}


def test_a_folder_that_has_gone(tmp_path):
    logits, labels = logits_of(6, 2)
    folder = noise(tmp_path, labels, ("a", "b"))
    with pytest.raises(UserError, match="gone/predictions.csv: cannot be written: No such file"):
        write_report(tmp_path / "gone", result_on(folder, logits))


def test_a_picture_that_has_gone(tmp_path):
    """The report of before is kept, and no part of a new one."""
    folder = draw_folder(tmp_path / "val", ("a", "b"), 3)
    logits, _ = logits_of(6, 2)
    path = write(tmp_path / "report", folder, logits)
    before = path.read_bytes()
    Path(folder.paths[4]).unlink()
    with pytest.raises(DataError, match="1<b>&.png: no such image"):
        write_report(path.parent, result_on(folder, logits, title="another"))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["predictions.csv", "report.html"]


def test_classes_of_one_name_have_their_numbers():
    names = unique_names(dataset_classes("ImageNet-1k"))
    assert len(set(names)) == 1000
    assert [name for name in names if "crane" in name] == ["crane (134)", "crane (517)"]


@pytest.mark.parametrize("seed", [0, 1])
def test_pictures_follow_the_numbers(seed):
    """The same numbers give the same bytes, others give others; light and dark differ."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.1, 1, 500)
    drawn = []
    for share in (0.5, 0.5, 0.9):
        bins = reliability(confidence, np.arange(500) < 500 * share)
        drawn.append(figures.reliability_diagram(bins))
    assert drawn[0] == drawn[1] and drawn[0].light != drawn[2].light
    assert drawn[0].light != drawn[0].dark


def overview(row, column):
    """What is drawn of one cell of ten by ten; pixels as brightness."""
    counts = np.zeros((10, 10), int)
    counts[row, column] = 5
    uri = figures.confusion_overview(counts, 1000).light
    data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(int)


def test_the_overview_shows_where_the_wrong_answers_are():
    """Rows from the top, columns from the left: each cell is darker where it has something."""
    below, right = overview(9, 0), overview(0, 9)
    height, width = below.shape
    for difference, low, left in ((right - below, True, True), (below - right, False, False)):
        rows, columns = np.nonzero(difference > 100)
        assert len(rows) > 500
        assert (rows.mean() > 0.7 * height, columns.mean() < 0.3 * width) == (low, left)


def filled(template, **content):
    return render(content, template).decode("utf-8")


def test_foreign_text_is_text():
    """As another parser reads it."""
    nasty = "<script>&lt;'\"> {{ title }} {% x %} ${x} &"
    read = []
    parser = HTMLParser()
    parser.handle_starttag = lambda name, attributes: read.append((name, dict(attributes)))
    parser.handle_data = read.append
    parser.feed(filled('<p title="{{ text }}">{{ text }}</p>', text=nasty))
    parser.close()
    assert read[0] == ("p", {"title": nasty}) and "".join(read[1:]) == nasty


def test_control_characters_are_written_out():
    """And what turns the direction of writing; bytes that are no UTF-8 as well."""
    text = "a\x1b[31m\x00\u202e\udcff\u2066\n"
    escaped = r"a\x1b[31m\x00\u202e\udcff\u2066\n"
    assert filled('<p title="{{ t }}">{{ t }}</p>', t=text) == f'<p title="{escaped}">{escaped}</p>'


def test_what_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="nothing"):
        filled("<p>{{ nothing }}</p>")


def test_the_policy_allows_the_scripts_of_the_template_only():
    script = "<script>a < b</script>"
    page = filled("{{ script_sources }}|" + script + "|{{ text }}", text="<script>x</script>")
    digest = base64.b64encode(hashlib.sha256(b"a < b").digest()).decode()
    expected = f"'sha256-{digest}'"
    policy, kept, text = page.split("|")
    assert html.unescape(policy) == expected
    assert kept == script and "<script>" not in text
