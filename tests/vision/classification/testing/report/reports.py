"""Answers of no network, and a reader of the pages that are made of them."""

from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

from official.vision.classification.data.folder import load_folder
from official.vision.classification.data.loader import Batch
from official.vision.classification.testing.report.answers import AnswersOfAll, ReportData
from official.vision.classification.testing.report.page import write_report

HOSTILE = (
    "<script>document.title = 1</script>",
    "=cmd|' '!A1",
    '"><img src=x onerror=a()>',
    "猫\t&amp;",
)


def logits_of(count, classes, seed=0, skill=2.0):
    """``(N, C)`` logits that know something, and ``(N,)`` labels of every class."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % classes).astype(np.int32)
    logits = rng.normal(0, 1.5, (count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += skill
    return logits, labels


def answers_to(logits, labels, batch=64):
    """As the evaluator hands them over."""
    collected = AnswersOfAll(len(labels), logits.shape[1])
    for start in range(0, len(labels), batch):
        rows = np.arange(start, min(start + batch, len(labels)))
        collected.add(Batch(None, labels[rows], rows), logits[rows])
    return collected.gather()


def draw_folder(root, classes, each, size=40):
    """A folder of noise for each class; the file names are as hostile as the classes'."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name.replace("/", "∕")).mkdir(parents=True)
        for number in range(each):
            _, data = cv2.imencode(".png", rng.integers(0, 255, (size, size, 3), np.uint8))
            path = root / name.replace("/", "∕") / f"{number}<b>&.png"
            path.write_bytes(data.tobytes())
    return load_folder(root)


def result_on(folder, logits, **further):
    """What a report on that folder is made of."""
    values = {"loss": 1.25, "title": "a network on <data>", "about": {"Weights": "<w>.pkl"}}
    return ReportData(folder, answers_to(logits, folder.labels), **{**values, **further})


def write(target, folder, logits, **further):
    """Make the folder ``target`` and a report in it; the path of its page."""
    target.mkdir()
    write_report(target, result_on(folder, logits, **further))
    return target / "report.html"


class Page(HTMLParser):
    """What is in a page: elements with attributes and text, tables as rows of texts."""

    VOID = ("meta", "img", "source", "br", "link", "input")

    def __init__(self, path):
        super().__init__()
        self.elements, self.tables, self._open = [], [], []
        self.feed(Path(path).read_text(encoding="utf-8") if isinstance(path, Path) else path)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements.append({"name": name, "text": "", "attributes": dict(attributes)})
        if name == "table":
            self.tables.append([])
        elif name == "tr":
            self.tables[-1].append([])
        elif name in ("td", "th"):
            self.tables[-1][-1].append("")
        if name not in self.VOID:
            self._open.append(self.elements[-1])

    def handle_endtag(self, name):
        assert name in self.VOID or self._open.pop()["name"] == name

    def handle_data(self, data):
        names = [element["name"] for element in self._open]
        for element in self._open:
            element["text"] += data
        if "td" in names or "th" in names:
            self.tables[-1][-1][-1] += data

    def all(self, name, **attributes):
        """The elements of that name with these attributes."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            element
            for element in self.elements
            if element["name"] == name
            and all(element["attributes"].get(key) == value for key, value in wanted.items())
        ]
