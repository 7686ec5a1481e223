"""Benchmarks for networks of ImageNet's classes are counted as their papers define."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.image import read_image
from official.vision.classification.distributed.launch import Topology
from official.vision.classification.errors import DataError, UsageError
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.testing import benchmarks
from official.vision.classification.testing.benchmarks import BENCHMARKS, line_of, read_real
from official.vision.classification.testing.tester import TestConfig as Config
from official.vision.classification.testing.tester import test as run_test
from official.vision.classification.zoo.classes import dataset_classes
from official.vision.classification.zoo.rows import BY_NAME
from official.vision.classification.zoo.trained import NetworkConfig, open_network

WHOLE = {"mean": [128, 128, 128], "std": [64, 64, 64], "resize": None, "crop": None}
IMAGENET = dataset_classes("ImageNet-1k")
ASSETS = Path(__file__).resolve().parents[4] / "official" / "assets"


def numbers(key):
    names = (ASSETS / BENCHMARKS[key].classes).read_text().split()
    return [IMAGENET.index(name) for name in names]


@pytest.mark.parametrize(
    ("key", "digest"),
    [("imagenet-a", "1b241a7a5dd97991"), ("imagenet-r", "becd1bb8e8059908")],
)
def test_the_classes_are_those_of_timms_lists_of_numbers(key, digest):
    """timm/data/_info/imagenet_a_indices.txt and imagenet_r_indices.txt at aa4b5850."""
    found = numbers(key)
    assert len(set(found)) == 200 and found == sorted(found)
    assert hashlib.sha256(" ".join(map(str, found)).encode()).hexdigest()[:16] == digest


def test_the_papers_counts():
    """Their own words: 10,000 images, 7,500, 30,000 and 50,889."""
    sizes = {key: each.images for key, each in BENCHMARKS.items()}
    assert sizes == {
        "imagenet-v2": 10_000,
        "imagenet-real": 50_000,
        "imagenet-a": 7_500,
        "imagenet-r": 30_000,
        "imagenet-sketch": 50_889,
    }
    keys = {each.key for each in BENCHMARKS.values()}
    assert keys == set(BY_NAME["resnet50.a1_in1k"].others)


def write_images(root, names):
    random = np.random.default_rng(7)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 256, (24, 24, 3), np.uint8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pkl"
    mge.random.seed(3)
    mge.save(resnet20_cifar(num_classes=1000).state_dict(), str(path))
    return path


@pytest.fixture
def config(weights, tmp_path):
    return Config(
        data=str(tmp_path / "data"),
        network=NetworkConfig("resnet20_cifar", str(weights), preprocess=WHOLE),
        device="cpu",
        batch_size=4,
        json=str(tmp_path / "result.json"),
    )


def logits_by_path(config):
    """What the network says of each image by itself."""
    network = open_network(config.network)
    found = {}
    for path in sorted(Path(config.data).rglob("*.png")):
        x = ((read_image(str(path)).astype(np.float32) - 128) / 64).transpose(2, 0, 1)[None]
        found[path] = network.model(mge.Tensor(np.ascontiguousarray(x))).numpy()[0]
    return found


def result_of(config):
    assert run_test(config) == 0
    return json.loads(Path(config.json).read_text())


@pytest.mark.parametrize("key", ["imagenet-a", "imagenet-r"])
def test_the_answer_is_the_likeliest_of_the_200(key, config, capsys):
    among = numbers(key)
    config = replace(config, benchmark=key)
    first, second = IMAGENET[among[3]], IMAGENET[among[150]]
    root = Path(config.data)
    write_images(root, [f"{name}/{i}.png" for name in (first, second) for i in range(20)])
    logits = logits_by_path(config)
    labels = {path: among.index(IMAGENET.index(path.parent.name)) for path in logits}
    orders = {path: np.argsort(-value[among], kind="stable") for path, value in logits.items()}
    top5 = sum(labels[path] in order[:5] for path, order in orders.items())
    # So that something is right: the first image's class is made what the network says of it.
    path = next(iter(logits))
    chosen = IMAGENET[among[orders[path][0]]]
    (root / chosen).mkdir(exist_ok=True)
    new = path.rename(root / chosen / "moved.png")
    if not any((root / first).iterdir()):
        (root / first).rmdir()
    result = result_of(config)["benchmark"]
    assert result["total"] == 40 and result["among_classes"] == 200
    labels[path] = among.index(IMAGENET.index(new.parent.name))
    right = sum(labels[each] == order[0] for each, order in orders.items())
    top5 = sum(labels[each] in order[:5] for each, order in orders.items())
    assert right >= 1
    assert (result["top1_correct"], result["top5_correct"]) == (right, top5)
    title = BENCHMARKS[key].title
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{title} Acc@1 {100 * right / 40:.3f}, Acc@5 {100 * top5 / 40:.3f} (40 images, among 200 "
        "classes)"
    )


def test_a_class_that_is_not_in_the_benchmark_is_refused(config, caplog):
    write_images(Path(config.data), [f"{IMAGENET[0]}/0.png"])  # no tench in ImageNet-A
    with pytest.raises(DataError) as caught:
        run_test(replace(config, benchmark="imagenet-a"))
    assert str(caught.value) == (
        f"{config.data}: n01440764 is no class of ImageNet-A, which has 200 of the 1,000"
    )
    assert "has 1 images and ImageNet-A has 7,500: what is counted is not its figure" in caplog.text


def test_numbered_folders_are_the_classes(config):
    """ImageNetV2's layout. The network's answers are the folders, so all of them are right."""
    config = replace(config, benchmark="imagenet-v2")
    root = Path(config.data)
    write_images(root, [f"{number}/0.png" for number in range(1000)])
    logits = logits_by_path(config)
    right = sum(int(path.parent.name) == value.argmax() for path, value in logits.items())
    top5 = sum(
        int(path.parent.name) in np.argsort(-value, kind="stable")[:5]
        for path, value in logits.items()
    )
    result = result_of(config)["benchmark"]
    assert (result["total"], result["top1_correct"]) == (1000, right)
    assert result["top5_correct"] == top5 > 0


def real_file(tmp_path, labels):
    values = [[] for _ in range(50_000)]
    for number, each in labels.items():
        values[number - 1] = each
    path = tmp_path / "real.json"
    path.write_text(json.dumps(values))
    return str(path)


@pytest.mark.parametrize("ngpus", [1, 2])
def test_real_labels(ngpus, config, tmp_path, capsys):
    """An image may have several right classes, or none, and then it does not count."""
    root = Path(config.data) / "val" / IMAGENET[5]
    images = [17, 2, 50_000, 1234, 9, 40_000, 3]
    write_images(root, [f"ILSVRC2012_val_{number:08d}.png" for number in images])
    answers = {
        int(path.stem[-8:]): int(value.argmax()) for path, value in logits_by_path(config).items()
    }
    labels = {
        17: [answers[17]],
        2: [(answers[2] + 1) % 1000, answers[2]],
        50_000: [(answers[50_000] + 1) % 1000],
        1234: [],
        9: [(answers[9] + 5) % 1000, (answers[9] + 6) % 1000],
        40_000: [answers[40_000], 7],
        3: [],
    }
    config = replace(
        config,
        benchmark="imagenet-real",
        real_labels=real_file(tmp_path, labels),
        topology=Topology(ngpus=ngpus),
        batch_size=2,
    )
    result = result_of(config)
    assert result["total"] == 7
    assert result["benchmark"] == {
        "name": "ImageNet ReaL",
        "published_top1": None,
        "top1": 60.0,
        "top1_correct": 3,
        "total": 5,
    }
    if ngpus == 1:  # else a process of its own prints
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "ImageNet ReaL Acc@1 60.000 (5 images)"


def test_real_labels_need_images_of_the_validation_set(config, tmp_path):
    write_images(Path(config.data), [f"{IMAGENET[5]}/other.png"])
    config = replace(config, benchmark="imagenet-real", real_labels=real_file(tmp_path, {}))
    with pytest.raises(DataError, match="other.png: ReaL labels are for ImageNet's validation"):
        run_test(config)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[[1000]]", "1000 is no class from 0 to 999"),
        ("[[-1]]", "-1 is no class"),
        ("[[1.5]]", "1.5 is no class"),
        ("[[" + "9" * 1_000_000 + "]]", "99999999999999999999 is no class"),
        ("[[NaN]]", "NaN is no class"),
        ("[[1], [2]]", "it is no list of 50,000 lists"),
        ("{}", "it is no list"),
        ("[" + "[true]," * 49_999 + "[1]]", "it is no list"),
    ],
)
def test_what_is_no_file_of_real_labels(text, reason, tmp_path):
    path = tmp_path / "real.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_real(str(path))
    message = str(caught.value)
    assert message.startswith(f"--real-labels {path}: ") and reason in message
    assert "expected real.json of github.com/google-research" in message and len(message) < 300


def test_files_that_never_end(tmp_path, monkeypatch):
    for path in ("/dev/zero", str(tmp_path / "missing"), str(tmp_path)):
        with pytest.raises(UsageError, match="no such file"):
            read_real(path)
    monkeypatch.setattr(benchmarks, "MAX_BYTES", 10)
    (tmp_path / "large").write_text("[" + " " * 20 + "]")
    with pytest.raises(UsageError, match="more than 10 bytes"):
        read_real(str(tmp_path / "large"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "imagenet-real"}, "--real-labels FILE and --benchmark imagenet-real need"),
        ({"benchmark": "imagenet-a", "real_labels": "x"}, "--real-labels FILE and --benchmark"),
        ({"real_labels": "x"}, "--real-labels needs --benchmark imagenet-real"),
    ],
)
def test_flags_that_do_not_go_together(changes, message, config):
    write_images(Path(config.data), [f"{IMAGENET[6]}/ILSVRC2012_val_00000001.png"])
    with pytest.raises(UsageError, match=message):
        run_test(replace(config, **changes))


def test_networks_of_other_classes(config, tmp_path):
    path = tmp_path / "ten.pkl"
    mge.save(resnet20_cifar(num_classes=10).state_dict(), str(path))
    write_images(Path(config.data), [f"{name}/0.png" for name in dataset_classes("CIFAR-10")])
    network = NetworkConfig("resnet20_cifar", str(path), preprocess=WHOLE)
    with pytest.raises(UsageError, match="1,000 classes, and this one has 10"):
        run_test(replace(config, network=network, benchmark="imagenet-v2"))


def test_the_published_figure_is_told_for_a_rows_own_preparation():
    row = BY_NAME["resnet50.a1_in1k"]
    network = NetworkConfig("resnet50.a1_in1k")
    assert published("imagenet-a", row, row.preprocess) == 15.84
    assert published("imagenet-a", row, row.more[0].preprocess) == 9.973
    assert published("imagenet-a", row, row.preprocess.override({"resize": 300})) is None
    assert network.arch == row.name
    told = {"name": "X", "top1": 1.0, "total": 3, "published_top1": 15.84}
    assert line_of(told) == "X Acc@1 1.000 (3 images, published: 15.84)"


def published(key, row, preprocess):
    class Known:
        class config:  # noqa: N801
            source = row.name

    Known.preprocess = preprocess
    return benchmarks._published(BENCHMARKS[key], Known)
