"""One small data set in every form in which data sets are given away, made by the usual tools.

Three of ImageNet's classes, 12 images to train on and 7 to test: noise, so that each can be told
from every other. They are PNG files, whatever they are called: so has ImageNet one.
"""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np

FILES = Path(__file__).resolve().parents[4] / "oracles" / "files" / "data"
CLASSES = ("n01440764", "n02123045", "n03991062")
LABELS = {"train": [0] * 5 + [1] * 3 + [2] * 4, "val": [0] * 2 + [1] * 3 + [2] * 2}
VAL_NUMBERS = (4, 7, 1, 2, 6, 3, 5)  # of the images for validation, by class and name as above


def pixels(split, index):
    """(20, 20, 3) uint8, BGR."""
    return np.random.default_rng((len(split), index)).integers(0, 256, (20, 20, 3), np.uint8)


def png(split, index):
    return cv2.imencode(".png", pixels(split, index))[1].tobytes()


def class_of(split, index):
    return CLASSES[LABELS[split][index]]


def name_of(split, index):
    """As ImageNet calls it."""
    if split == "val":
        return f"ILSVRC2012_val_{sorted(VAL_NUMBERS)[_val_order().index(index)]:08}.JPEG"
    return f"{class_of(split, index)}_{100 + index}.JPEG"


def _val_order():
    """Indices of the images for validation by their numbers; within a class numbers must rise."""
    numbers = sorted(range(7), key=lambda index: (LABELS["val"][index], VAL_NUMBERS[index]))
    ordered = dict(zip(range(7), (VAL_NUMBERS[index] for index in numbers)))
    return sorted(range(7), key=ordered.__getitem__)


def in_order():
    """(split, index) of all images."""
    return [(split, index) for split in LABELS for index in range(len(LABELS[split]))]


def tree(root, prefix=""):
    """Image folders; the form that all others are compared with."""
    for split, index in in_order():
        path = root / prefix / split / class_of(split, index) / name_of(split, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(split, index))
    return root


def run(*command, cwd):
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def one_tar(root):
    tree(root / "x")
    run("tar", "cf", root / "all.tar", "train", "val", cwd=root / "x")
    return _only(root, "all.tar")


def tar_in_folder(root):
    """With ./ before every name, folders of their own, and a folder around."""
    tree(root / "x", "flowers")
    run("tar", "--format=posix", "-cf", root / "all.tar", "./flowers", cwd=root / "x")
    return _only(root, "all.tar")


def tar_per_split(root):
    tree(root / "x")
    for split, name in (("train", "train.tar"), ("val", "validation.tar")):
        run("tar", "cf", root / name, "-C", f"x/{split}", *CLASSES, cwd=root)
    shutil.rmtree(root / "x")
    return root


def long_names(root):
    """Names of more than 100 characters, in the way of GNU."""
    deep = "/".join(["a_folder_of_forty_characters_" + "x" * 11] * 4)
    tree(root / "x", deep)
    run("tar", "--format=gnu", "-cf", root / "all.tar", deep.split("/")[0], cwd=root / "x")
    return _only(root, "all.tar")


def one_zip(root, *flags):
    tree(root / "x")
    run("zip", "-q", "-r", *flags, root / "all.zip", "train", "val", cwd=root / "x")
    return _only(root, "all.zip")


def stored_zip(root):
    return one_zip(root, "-0")


def zip_per_split(root):
    tree(root / "x")
    for split in LABELS:
        run("zip", "-q", "-r", root / f"{split}.zip", split, cwd=root / "x")
    shutil.rmtree(root / "x")
    return root


def official(root, kit=True):
    """ImageNet's own archives: a tar of tars, a flat tar, and the development kit."""
    tree(root / "x")
    for name in CLASSES:
        run("tar", "cf", f"../{name}.tar", "-C", name, ".", cwd=root / "x" / "train")
    archives = [f"{name}.tar" for name in CLASSES]
    run("tar", "cf", root / "ILSVRC2012_img_train.tar", *archives, cwd=root / "x")
    (root / "x" / "flat").mkdir()
    for path in sorted((root / "x" / "val").glob("*/*")):
        path.rename(root / "x" / "flat" / path.name)
    names = sorted(path.name for path in (root / "x" / "flat").iterdir())
    run("tar", "cf", root / "ILSVRC2012_img_val.tar", *names, cwd=root / "x" / "flat")
    shutil.rmtree(root / "x")
    if kit:
        folder = devkit(root / "y")
        run("tar", "czf", root / f"{folder.name}.tar.gz", folder.name, cwd=root / "y")
        shutil.rmtree(root / "y")
    return root


def devkit(root):
    folder = root / "ILSVRC2012_devkit_t12"
    (folder / "data").mkdir(parents=True)
    shutil.copy(FILES / "meta.mat", folder / "data")
    ids = {CLASSES[2]: 1, CLASSES[0]: 2, CLASSES[1]: 3}
    lines = [f"{ids[class_of('val', index)]}\n" for index in _val_order()]
    (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(lines))
    return folder


def official_kit_unpacked(root):
    devkit(official(root, kit=False))
    return root


def kaggle(root):
    folder = root / "ILSVRC" / "Data" / "CLS-LOC"
    tree(folder)
    rows = ["ImageId,PredictionString\n"]
    for path in sorted((folder / "val").glob("*/*"), reverse=True):
        rows.append(f"{path.stem},{path.parent.name} 1 2 30 40 {path.parent.name} 5 5 9 9 \n")
        path.rename(folder / "val" / path.name)
    for name in CLASSES:
        (folder / "val" / name).rmdir()
    (folder / "test").mkdir()
    (folder / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(b"without a class")
    (root / "LOC_val_solution.csv").write_text("".join(rows))
    return root


def kaggle_inside(root):
    """The folder that holds train/ and val/ itself."""
    return kaggle(root) / "ILSVRC" / "Data" / "CLS-LOC"


def kaggle_zip(root):
    kaggle(root / "x")
    run("zip", "-q", "-r", root / "kaggle.zip", ".", cwd=root / "x")
    return _only(root, "kaggle.zip")


def webdataset(root):
    """Written by WebDataset's own ShardWriter; see tests/oracles/make_data_files.py."""
    for path in FILES.glob("shards-*.tar"):
        shutil.copy(path, root)
    shutil.copy(FILES / "classes.txt", root)
    return root


def webdataset_json(root):
    """As the timm project has ImageNet on Hugging Face's hub: .json with label and more."""
    for split in LABELS:
        with tarfile.open(root / f"imagenet1k-{split}-0000.tar", "w") as archive:
            for index, label in enumerate(LABELS[split]):
                about = {"filename": name_of(split, index), "label": label, "width": 20}
                add(archive, f"{split}_{index:04}.json", json.dumps(about).encode())
                add(archive, f"{split}_{index:04}.png", png(split, index))
    (root / "classnames.txt").write_text("\n".join(CLASSES))
    return root


def hugging_face(root):
    """Written by Hugging Face's ``datasets``; see tests/oracles/make_data_files.py."""
    (root / "data").mkdir()
    for path in FILES.glob("*.parquet"):
        shutil.copy(path, root / "data")
    return root


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _only(root, name):
    """The archive alone: what it was made of is gone."""
    shutil.rmtree(root / "x")
    return root / name


FORMS = {
    form.__name__: form
    for form in (
        *(one_tar, tar_in_folder, tar_per_split, long_names, one_zip, stored_zip, zip_per_split),
        *(official, official_kit_unpacked, kaggle, kaggle_inside, kaggle_zip),
        *(webdataset, webdataset_json, hugging_face),
    )
}
