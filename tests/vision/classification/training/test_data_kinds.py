"""The same images, kept in several ways, train the same network and are judged alike by it."""

import json
import shutil
import tarfile
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from official.vision.classification.data.sources import entries
from official.vision.classification.errors import DataError
from official.vision.classification.testing.tester import TestConfig as Config
from official.vision.classification.testing.tester import test as run_test
from official.vision.classification.training.trainer import train
from official.vision.classification.zoo.trained import NetworkConfig
from tests.vision.classification.data.cifar_files import CIFAR10, dumps, packed

# In the order of folders, classes before images; each class at least once in every split.
LABELS = {"train": sorted([*range(10), *range(10), 3, 3, 7, 9, 0]), "val": [*range(10), 9, 9]}
PIXELS = {
    split: np.random.default_rng(len(split)).integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    for split, labels in LABELS.items()
}  # RGB


def as_folders(root, layout="{split}/{name}/{index:02}.png"):
    """The paths of the files, by split."""
    paths = {}
    for split, labels in LABELS.items():
        paths[split] = []
        for index, label in enumerate(labels):
            path = root / layout.format(split=split, name=CIFAR10[label], index=index)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), PIXELS[split][index][:, :, ::-1])
            paths[split].append(path)
    return paths


def folders(root):
    as_folders(root)
    return root


def cifar(root):
    def batch(split, rows):
        pixels = PIXELS[split][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return dumps({"labels": LABELS[split][rows], "data": np.ascontiguousarray(pixels)})

    files = {f"data_batch_{i + 1}": batch("train", slice(5 * i, 5 * i + 5)) for i in range(5)}
    files["test_batch"] = batch("val", slice(None))
    files["batches.meta"] = dumps({"label_names": list(CIFAR10)})
    path = root / "cifar-10-python.tar.gz"
    path.write_bytes(packed({f"cifar-10-batches-py/{name}": files[name] for name in files}))
    return path


def cub(root):
    paths = as_folders(root, "images/{name}/{split}_{index}.png")
    images = [
        (path.relative_to(root / "images"), LABELS[split][index], int(split == "train"))
        for split in paths
        for index, path in enumerate(paths[split])
    ]
    columns = {
        "classes": CIFAR10,
        "images": [path for path, _, _ in images],
        "image_class_labels": [label + 1 for _, label, _ in images],
        "train_test_split": [flag for _, _, flag in images],
    }
    for name, values in columns.items():
        lines = "".join(f"{number} {value}\n" for number, value in enumerate(values, 1))
        (root / f"{name}.txt").write_text(lines)
    return root


def csv(root):
    paths = as_folders(root, "files/{split}{index}.png")
    rows = [
        f"{path.relative_to(root)},{CIFAR10[label]},{split}\n"
        for split in paths
        for path, label in zip(paths[split], LABELS[split])
    ]
    (root / "list.csv").write_text("".join(rows))
    return root / "list.csv"


def tar(root):
    as_folders(root / "x")
    with tarfile.open(root / "all.tar", "w") as archive:
        archive.add(root / "x", ".")
    return root / "all.tar"


def zips(root):
    as_folders(root / "x")
    for split in LABELS:
        shutil.make_archive(str(root / split), "zip", root / "x" / split)
    return root


def shards(root):
    """WebDataset's form; labels are numbers, and their names in a list beside."""
    for split, paths in as_folders(root / "x").items():
        with tarfile.open(root / f"{split}-000.tar", "w") as archive:
            for label, path in zip(LABELS[split], paths):
                label_file = path.with_suffix(".cls")
                label_file.write_text(str(label))
                archive.add(path, path.name)
                archive.add(label_file, label_file.name)
    (root / "classes.txt").write_text("\n".join(CIFAR10))
    return root


def parquet(root):
    names = {"info": {"features": {"label": {"names": list(CIFAR10)}}}}
    for split, paths in as_folders(root / "x").items():
        images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
        table = pa.table({"image": images, "label": LABELS[split]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet", row_group_size=7)
    return root


@pytest.mark.usefixtures("small")
def test_training_and_testing(config, tmp_path, monkeypatch):
    # Where indexes are kept; the kernels, which lie there, too, cannot be loaded a second time.
    monkeypatch.setattr(entries, "_get_megengine_home", lambda: str(tmp_path / "home"))
    answers = []
    for kind in (folders, cifar, cub, csv, tar, zips, shards, parquet):
        (tmp_path / kind.__name__).mkdir()
        data = str(kind(tmp_path / kind.__name__))
        save = tmp_path / f"{kind.__name__}-run"
        recipe = config.recipe.with_epochs(1)
        assert train(replace(config, data=data, save=str(save), recipe=recipe)) == 0
        best = save / "resnet20_cifar" / "best.safetensors"
        result = save / "result.json"
        network = NetworkConfig(model=str(best))
        assert run_test(Config(data, network, device="cpu", json=str(result))) == 0
        answers.append((load_file(best), json.loads(result.read_text())))
    weights, judged = answers[0]
    assert judged["total"] == 12 and len(weights) > 20
    for other, also_judged in answers[1:]:
        assert also_judged == judged
        assert other.keys() == weights.keys()
        for name in weights:
            np.testing.assert_array_equal(other[name], weights[name])


def test_a_damaged_image_in_a_list_is_named(config, tmp_path):
    path = csv(tmp_path)
    (tmp_path / "files" / "train3.png").write_bytes(b"")
    with pytest.raises(DataError, match="files/train3.png: the file is empty"):
        train(replace(config, data=str(path)))
