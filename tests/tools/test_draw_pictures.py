"""The pictures in docs/ show the networks and rows as they are, and as the papers have them."""

import json
import re
from pathlib import Path
from typing import Tuple
from xml.etree import ElementTree

import cv2
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import model
from official.vision.classification.zoo import ARCHS, ROWS
from tests import documents
from tests.scripts import load_script

from .pictures.svg import KINDS, PIXEL, SVG, marks, overlap, texts

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def tool():
    """The script, for networks whose weights are left undrawn: only the shapes matter."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("msra_normal_", "uniform_", "ones_", "zeros_", "fill_"):
            patch.setattr(M.init, name, lambda *args, **kwargs: None)
        yield load_script("tools/draw_pictures.py")


@pytest.mark.parametrize("name", ["architectures", "accuracy", "fine_tuning"])
def test_the_pictures_are_what_the_networks_and_cards_say(tool, tmp_path, name):
    tool.draw(name, tmp_path / "new.svg")
    path = PICTURES / f"{name}.svg"
    assert path.stat().st_size < 200_000
    new, old = texts(tmp_path / "new.svg"), texts(path)
    message = "run python tools/draw_pictures.py"
    assert [text.words for text in new] == [text.words for text in old], message
    places = [[text[1:3] for text in each] for each in (new, old)]
    assert np.allclose(*places, atol=1), message
    new_marks, old_marks = marks(tmp_path / "new.svg"), marks(path)
    assert new_marks.keys() == old_marks.keys(), message
    for mark, place in new_marks.items():
        assert place == pytest.approx(old_marks[mark], abs=0.1), message


def test_the_photograph_is_what_is_drawn_of_it(tmp_path, capsys):
    load_script("tools/draw_pictures.py").draw_photograph(tmp_path / "new.jpg")
    path = PICTURES / "cat.jpg"
    assert path.stat().st_size < 200_000
    new, old = (cv2.imread(str(each)).astype(int) for each in (tmp_path / "new.jpg", path))
    assert new.shape == old.shape and np.abs(new - old).mean() < 1


def test_the_answers_in_the_readme_are_those_that_are_given(capsys):
    """But for the last digit, which differs between kernels."""
    (block,) = [b for b in documents.blocks("README.md") if b.text.startswith("$ python inf")]
    command, *shown = block.text.splitlines()
    words = command.split()[3:]
    assert load_script("inference.py").main([*words, "--device", "cpu"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(shown) == 5
    for one, other in zip(told, shown):
        assert one.split()[:-2] == other.split()[:-2]
        assert float(one.split()[-2]) == pytest.approx(float(other.split()[-2]), abs=0.15)


@pytest.mark.parametrize("name", ["architectures", "accuracy"])
def test_words_are_on_the_sheet_and_none_upon_another(name):
    path = PICTURES / f"{name}.svg"
    _, _, width, height = (
        float(value) / PIXEL
        for value in ElementTree.parse(path).getroot().attrib["viewBox"].split()
    )
    found = texts(path)
    assert width == 900
    assert len(found) > 60
    for place, text in enumerate(found):
        assert text.left >= 0 and text.right <= width and text.size < text.y < height - 2, text
        assert text.size >= 10
        for other in found[:place]:
            assert not overlap(text.box, other.box), (text, other)


def test_words_fit_their_boxes():
    boxes = []
    for path in ElementTree.parse(PICTURES / "architectures.svg").iter(f"{SVG}path"):
        corners = np.float64(re.findall(r"[\d.]+", path.attrib["d"])).reshape(-1, 2) / PIXEL
        if "Q" in path.attrib["d"]:
            boxes.append((*corners.min(0), *corners.max(0)))
    inside = 0
    for text in texts(PICTURES / "architectures.svg"):
        for left, top, right, bottom in boxes:
            if left < text.x < right and top < text.y < bottom:
                assert left <= text.left and text.right <= right, text
                inside += 1
    assert inside > 250
    assert not any(overlap(one, other) for one in boxes for other in boxes if one is not other)


def stage(size, *layers):
    return [f"{size}×{size}", *layers]


def bottlenecks(inner, counts, groups=()):
    """Four stages of 1x1, 3x3 and 1x1 convolutions; the last has 256 to 2,048 channels."""
    return [
        line
        for index, count in enumerate(counts)
        for line in stage(
            56 >> index,
            f"1×1, {inner << index}",
            f"3×3, {inner << index}",
            *groups,
            f"1×1, {256 << index}",
            f"× {count}",
        )
    ]


STEM = stage(56, "7×7/2, 64", "max 3×3/2")
DEEP_STEM = stage(56, "3×3/2, 32", "3×3, 32", "3×3, 64", "max 3×3/2")
HEAD = ["mean 7×7", "linear, 1000"]
HE_50 = ("3 | 3 | 3", "4 | 4 | 8", "6 | 23 | 36", "3 | 3 | 3")
CIFAR = "× 3|5|7|9|18"  # (depth - 2) / 6
TABLE = {
    # He et al. 2016, Table 1.
    ("ResNet", "18 | 34"): [
        *STEM,
        *stage(56, "3×3, 64", "3×3, 64", "× 2 | 3"),
        *stage(28, "3×3, 128", "3×3, 128", "× 2 | 4"),
        *stage(14, "3×3, 256", "3×3, 256", "× 2 | 6"),
        *stage(7, "3×3, 512", "3×3, 512", "× 2 | 3"),
        *HEAD,
    ],
    ("ResNet", "50 | 101 | 152"): [*STEM, *bottlenecks(64, HE_50), *HEAD],
    # Bag of Tricks, section 4.2.
    ("ResNet-C", "50 | 101 | 152"): [*DEEP_STEM, *bottlenecks(64, HE_50), *HEAD],
    ("ResNet-D", "50 | 101 | 152"): [*DEEP_STEM, *bottlenecks(64, HE_50), *HEAD],
    # Xie et al., Table 1, right.
    ("ResNeXt", "50 32x4d"): [*STEM, *bottlenecks(128, (3, 4, 6, 3), ["32 groups"]), *HEAD],
    # Zagoruyko and Komodakis, section 3: the inner convolution twice as wide.
    ("Wide ResNet", "50-2 | 101-2"): [
        *STEM,
        *bottlenecks(128, ("3 | 3", "4 | 4", "6 | 23", "3 | 3")),
        *HEAD,
    ],
    ("ResNet v2", "50 | 101"): [
        *STEM,
        *bottlenecks(64, ("3 | 3", "4 | 4", "6 | 23", "3 | 3")),
        *HEAD,
    ],
    # He et al. 2016, section 4.2.
    ("CIFAR ResNet", "20|32|44|56|110"): [
        *stage(32, "3×3, 16"),
        *stage(32, "3×3, 16", "3×3, 16", CIFAR),
        *stage(16, "3×3, 32", "3×3, 32", CIFAR),
        *stage(8, "3×3, 64", "3×3, 64", CIFAR),
        "mean 8×8",
        "linear, 10",
    ],
}


def test_the_table_is_the_papers():
    found = texts(PICTURES / "architectures.svg")
    (heading,) = (text for text in found if text.words.startswith("Blocks:"))
    upper = [text for text in found if text.y < heading.y - 30]
    titles = sorted((text for text in upper if text.y < 25), key=lambda text: text.x)
    columns = {}
    for title in titles:
        column = [text for text in upper if abs(text.x - title.x) < 0.5]
        title, depths, *lines = (text.words for text in sorted(column, key=lambda text: text.y))
        columns[title, depths] = lines
    assert columns == TABLE


IDENTITY = "later blocks: identity"
BOTTLENECK = ["1×1", "BN", "ReLU", "3×3/2", "BN", "ReLU", "1×1", "BN", "+", "ReLU"]
BLOCKS = {
    # He et al. 2016, Figure 5, with option B; the stride as in Bag of Tricks, Figure 2a.
    ("ResNet 18, 34",): (["3×3/2", "BN", "ReLU", "3×3", "BN", "+", "ReLU"], ["1×1/2", "BN"]),
    ("ResNet 50, 101, 152", "ResNet-C", "Wide ResNet"): (BOTTLENECK, ["1×1/2", "BN"]),
    # Bag of Tricks, Figure 2c.
    ("ResNet-D",): (BOTTLENECK, ["mean 2×2/2", "1×1", "BN"]),
    ("ResNeXt",): ([*BOTTLENECK[:4], "32 groups", *BOTTLENECK[4:]], ["1×1/2", "BN"]),
    # He et al. (identity mappings), Figure 4e; the shortcut's BN is MindCV's.
    ("ResNet v2",): (
        ["BN", "ReLU", "1×1", "BN", "ReLU", "3×3/2", "BN", "ReLU", "1×1", "+"],
        ["1×1/2", "BN"],
    ),
    # He et al. 2016, section 4.2: option A.
    ("CIFAR ResNet",): (
        ["3×3/2", "BN", "ReLU", "3×3", "BN", "+", "ReLU"],
        ["subsample/2", "8+8 zero maps"],
    ),
}


def test_the_blocks_are_the_papers():
    found = texts(PICTURES / "architectures.svg")
    (heading,) = (text for text in found if text.words.startswith("Blocks:"))
    lower = sorted((text for text in found if text.y > heading.y + 5), key=lambda text: text.y)
    captions = [text for text in lower if text.y == lower[0].y]
    blocks = {}
    for caption in captions:
        mine = [text for text in lower if caption.x <= text.x < caption.x + 140]
        *owners, last = [text.words for text in mine if text.x == caption.x]
        assert last == IDENTITY
        branch = min(text.x for text in mine if text.x > caption.x)
        paths = ([], [])
        for text in mine:
            if text.x > caption.x:
                paths[int(text.x > branch + 10)].append(text.words)
        blocks[tuple(owners)] = paths
    assert blocks == BLOCKS


def test_networks_that_differ_have_no_column(tool, monkeypatch):
    from tools.pictures import architectures

    monkeypatch.setitem(ARCHS, "resnet20_cifar", lambda: model.ResNet(model.BasicBlock, [1] * 4))
    names = {"20": "resnet20_cifar", "32": "resnet32_cifar"}
    with pytest.raises(ValueError, match="resnet32_cifar: not all blocks"):
        architectures.look(architectures.Column("CIFAR", names))


def axis(panel, which) -> Tuple[np.ndarray, np.ndarray]:
    """Places of an axis' ticks in points, and the numbers at them."""
    places, numbers = [], []
    for tick in panel.iter(f"{SVG}g"):
        if tick.attrib.get("id", "").startswith(f"{which}tick_"):
            (use,) = tick.iter(f"{SVG}use")
            (label,) = tick.iter(f"{SVG}text")
            places.append(float(use.attrib[which]))
            numbers.append(float(label.text))
    return np.float64(places), np.float64(numbers)


def test_marks_are_where_the_cards_say():
    """Read as one reads a plot: by the ticks next to a mark."""
    seen = []
    path = PICTURES / "accuracy.svg"
    for panel in ElementTree.parse(path).iter(f"{SVG}g"):
        if not re.fullmatch(r"axes_[1-5]", panel.attrib.get("id", "")):
            continue
        (xs, sizes), (ys, accuracies) = axis(panel, "x"), axis(panel, "y")
        to_size, to_accuracy = np.polyfit(xs, np.log(sizes), 1), np.polyfit(ys, accuracies, 1)
        for group in panel.iter(f"{SVG}g"):
            size, _, name = group.attrib.get("id", "").partition(".")
            if f"{size}." not in KINDS:
                continue
            (use,) = group.iter(f"{SVG}use")
            (row,) = (row for row in ROWS if row.name == name)
            truth = {
                "parameters": row.params / 1e6,
                "multiply-adds": row.macs / 1e9,
                "images": speed(row),
            }[size]
            found = np.exp(np.polyval(to_size, float(use.attrib["x"])))
            assert found == pytest.approx(truth, rel=2e-3), (size, name)
            top1 = np.polyval(to_accuracy, float(use.attrib["y"]))
            assert top1 == pytest.approx(row.top1, abs=5e-3), name
            seen.append((size, name))
    wanted = [
        (size, row.name)
        for size in ("parameters", "multiply-adds", "images")
        for row in ROWS
        if row.top1 is not None
        and row.dataset in ("ImageNet-1k", *(["CIFAR-10"] if size != "images" else []))
    ]
    assert sorted(seen) == sorted(wanted)


SPEEDS = json.loads((PICTURES / "speeds.json").read_text("utf-8"))


def speed(row):
    """Images per second of its network at its size, as they were measured."""
    found = [
        each["images_per_second"]
        for each in SPEEDS["networks"]
        if (each["network"], each["px"]) == (row.arch, row.preprocess.crop)
    ]
    return found[0] if row.dataset == "ImageNet-1k" else None


def test_speeds_are_of_every_row_and_say_of_what_machine():
    pairs = [(each["network"], each["px"]) for each in SPEEDS["networks"]]
    rows = [row for row in ROWS if row.dataset == "ImageNet-1k" and row.top1 is not None]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(row.arch, row.preprocess.crop) for row in rows}
    words = " ".join(text.words for text in texts(PICTURES / "accuracy.svg"))
    assert SPEEDS["machine"]["cpu"] in words and SPEEDS["date"] in words
    assert f"{SPEEDS['threads']} threads on {SPEEDS['machine']['cores']} cores" in words
    for each in SPEEDS["networks"]:
        assert each["passes"] >= 5 and "native" in each["kernels"]
    by_pair = {pair: each["images_per_second"] for pair, each in zip(pairs, SPEEDS["networks"])}
    rates = [row.macs / 1e9 * by_pair[row.arch, row.preprocess.crop] for row in rows]
    assert max(rates) < 8 * min(rates)  # multiply-adds per second: no slip of a unit or a network


COLORS = {
    "MegEngine/Models": "#d55e00",
    "MMPreTrain": "#0072b2",
    "MindCV": "#009e73",
    "timm": "#7b3294",
    "torchvision": "#8c510a",
}


def frontier(size):
    """The ImageNet rows of a free licence that are better than all which are no larger."""
    rows = [row for row in ROWS if row.dataset == "ImageNet-1k" and row.top1]
    rows = [row for row in rows if "NC" not in row.licence]
    cost = {
        "parameters": lambda row: row.params,
        "multiply-adds": lambda row: row.macs,
        "images": lambda row: 1 / speed(row),
    }[size]
    return {
        row.name
        for row in rows
        if all(other.top1 < row.top1 or cost(other) > cost(row) or other is row for other in rows)
    }


def test_each_mark_that_is_named_has_its_name_near():
    """In its colour, which is its publisher's."""
    path = PICTURES / "accuracy.svg"
    found = texts(path)
    rows = {row.name: row for row in ROWS}
    named = 0
    for mark, place in marks(path).items():
        size, _, name = mark.partition(".")
        row = rows[name]
        if row.dataset == "ImageNet-1k" and name not in frontier(size):
            continue
        named += 1
        words = name.replace("_in1k", "") if "." in name else row.arch
        x, y = (value / PIXEL for value in place)
        distances = [
            np.hypot(x - min(max(x, text.left), text.right), y - text.y)
            for text in found
            if re.match(rf"{re.escape(words)}( |$)", text.words)
            and text.color == COLORS[row.source]
        ]
        assert min(distances) < 70, mark
    words = [text.words for text in found]
    sizes = ("parameters", "multiply-adds", "images")
    assert named == 2 * 5 + sum(len(frontier(size)) for size in sizes) > 45
    assert len([each for each in words if re.match("(wide_)?resne[xt]", each)]) == named
    assert any("CIFAR-100: resnet50_cifar 79.90" in each for each in words)
    assert words[-1] == "100" or any("resnetv2_101, resnext101_32x48d" in each for each in words)


def test_marks_of_a_licence_that_forbids_something_are_hollow():
    hollow = set()
    for group in ElementTree.parse(PICTURES / "accuracy.svg").iter(f"{SVG}g"):
        size, _, name = group.attrib.get("id", "").partition(".")
        if f"{size}." in KINDS:
            (use,) = group.iter(f"{SVG}use")
            if re.search(r"fill: #ffffff", use.attrib["style"]):
                hollow.add(name)
    assert hollow == {row.name for row in ROWS if "NC" in row.licence and row.top1 is not None}


def test_the_document_about_networks():
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        assert re.search(r"arxiv\.org/abs/|same section|He et al\.|no paper", section), section[:20]
    best = [row.top1 for row in ROWS if row.arch == "resnet50" and row.dataset[:5] == "Image"]
    assert f"between {min(best):.2f} and {max(best):.2f} %" in text
    for picture in re.findall(r"\]\((pictures/[^)]+)\)", text):
        assert (ROOT / "docs" / picture).is_file()
