import hashlib
import logging
import os
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest

from official.vision.classification.data.augment import Augment, TrainTransform
from official.vision.classification.data.folder import load_split
from official.vision.classification.data.loader import Loader
from official.vision.classification.data.sampler import eval_batches
from official.vision.classification.data.sources import cifar_archive
from official.vision.classification.data.transforms import EvalTransform
from official.vision.classification.errors import DataError
from official.vision.classification.preprocess import Preprocess
from tests.vision.classification.data.cifar_files import (
    CIFAR10,
    CIFAR100,
    batch,
    cifar10_files,
    cifar100_files,
    dumps,
    packed,
    unpack,
)
from tests.vision.classification.readers.handmade import shell_command

pytestmark = pytest.mark.timeout(120)

TEN, HUNDRED = cifar10_files(), cifar100_files()
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def unpickled(files, names, label_key):
    """Pixels and labels by the standard library's pickle and a loop of its own: RGB, float64."""
    images, labels = [], []
    for name in names:
        (raw,) = [files[path] for path in files if path.endswith(f"/{name}")]
        values = pickle.loads(raw, encoding="bytes")
        labels += values[label_key.encode()]
        for row in values[b"data"]:
            image = np.zeros((32, 32, 3))
            for place, value in enumerate(row):
                image[place % 1024 // 32, place % 32, place // 1024] = value
            images.append(image)
    return images, labels


def written(path, data):
    path.write_bytes(data)
    return path


def refusal(path, split="train"):
    with pytest.raises(DataError) as caught:
        load_split(path, split)
    message = str(caught.value)
    assert message.startswith(f"{path}") and "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message


def test_the_published_meta_files():
    """The writer of these tests gives them to the bit, so it writes as their authors did."""
    meta10, meta100 = TEN["cifar-10-batches-py/batches.meta"], HUNDRED["cifar-100-python/meta"]
    assert hashlib.md5(meta10).hexdigest() == "5ff9c542aee3614f3951f8cda6e48888"
    assert hashlib.md5(meta100).hexdigest() == "7973b15100ade9c7d40fb424638fde48"


@pytest.fixture(params=["tar.gz", "tar", "renamed", "folder", "renamed folder"])
def place(request, tmp_path):
    """Puts the files of an archive where a user may have them."""

    def put(files):
        if "folder" in request.param:
            folder = unpack(files, tmp_path)
            return folder.rename(tmp_path / "c") if "renamed" in request.param else folder
        data = packed(files, "w" if request.param == "tar" else "w:gz")
        name = "download" if request.param == "renamed" else f"cifar.{request.param}"
        return written(tmp_path / name, data)

    return put


@pytest.mark.parametrize(
    ("files", "split", "names", "key"),
    [
        (TEN, "train", TRAIN, "labels"),
        (TEN, "val", ["test_batch"], "labels"),
        (HUNDRED, "train", ["train"], "fine_labels"),
        (HUNDRED, "val", ["test"], "fine_labels"),
    ],
)
def test_images_and_labels_are_those_of_the_pickles(place, files, split, names, key):
    path = place(files)
    found = load_split(str(path), split)
    images, labels = unpickled(files, names, key)
    assert len(found) == len(images) == len(found.paths) > 7
    assert found.classes == (CIFAR10 if files is TEN else CIFAR100)
    assert found.labels.dtype == np.int32 and found.labels.tolist() == labels
    for index, image in enumerate(images):
        assert found.read(index).dtype == np.uint8
        np.testing.assert_array_equal(found.read(index), image[:, :, ::-1])  # BGR
    assert found.paths[0] == f"{path}: {names[0]}, row 0"
    assert found.paths[-1].startswith(f"{path}: {names[-1]}, row ")


def test_an_array_in_fortran_order(tmp_path):
    values = pickle.loads(TEN["cifar-10-batches-py/test_batch"], encoding="latin-1")
    turned = {**values, "data": np.asfortranarray(values["data"])}
    files = {**TEN, "cifar-10-batches-py/test_batch": dumps(turned)}
    assert b"tb\x88T" in files["cifar-10-batches-py/test_batch"]
    found = load_split(written(tmp_path / "a", packed(files)), "val")
    np.testing.assert_array_equal(found.pixels[3, 2, 5], values["data"][3][[2117, 1093, 69]])


def test_the_loader_gives_the_pixels_in_the_networks_order(tmp_path):
    folder = load_split(written(tmp_path / "a", packed(TEN)), "val")
    images, labels = unpickled(TEN, ["test_batch"], "labels")
    whole = EvalTransform(Preprocess(resize=None, crop=None))
    for order, step in (("RGB", 1), ("BGR", -1)):
        found = list(Loader(folder, whole, order, eval_batches(len(folder), 3, 0, 1)))
        expected = np.stack(images).transpose(0, 3, 1, 2)[:, ::step]
        np.testing.assert_array_equal(np.concatenate([b.images for b in found]), expected)
        assert np.concatenate([b.labels for b in found]).tolist() == labels


def test_what_becomes_of_an_image_does_not_come_back(tmp_path):
    folder = load_split(written(tmp_path / "a", packed(TEN)), "val")
    before = folder.pixels.copy()
    folder.read(0)[:] = 7
    transform = TrainTransform(32, Augment(crop="padded", jitter=0.4, erasing=1.0))
    list(Loader(folder, transform, "BGR", eval_batches(len(folder), 3, 0, 1)))
    np.testing.assert_array_equal(folder.pixels, before)
    assert folder.content(0) == before[0].tobytes()


def test_classes_are_matched_by_name(tmp_path):
    folder = load_split(written(tmp_path / "a", packed(TEN)), "val")
    backwards = folder.relabel(CIFAR10[::-1])
    assert backwards.labels.tolist() == (9 - folder.labels).tolist()
    np.testing.assert_array_equal(backwards.read(4), folder.read(4))


def test_the_published_sums():
    """As torchvision's CIFAR10 and CIFAR100 have them."""
    assert cifar_archive._CIFAR10.md5 == {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    }
    assert cifar_archive._CIFAR100.md5 == {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    }


def test_files_that_differ_are_named_in_a_warning(tmp_path, caplog, monkeypatch):
    path = written(tmp_path / "a", packed(TEN))
    with caplog.at_level(logging.WARNING):
        load_split(path, "val")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: not as published, by the md5 of test_batch;")
    assert "cifar-10-python.tar.gz" in record.getMessage()

    caplog.clear()
    sums = {name.split("/")[1]: hashlib.md5(raw).hexdigest() for name, raw in TEN.items()}
    ours = replace(cifar_archive._CIFAR10, md5=sums)
    monkeypatch.setattr(cifar_archive, "_ALL", (ours, cifar_archive._CIFAR100))
    with caplog.at_level(logging.WARNING):
        load_split(path, "train")
        load_split(path, "val")
    assert not caplog.records


@pytest.mark.parametrize("files", [TEN, HUNDRED], ids=["10", "100"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_file_is_named(files, split, tmp_path):
    needed = {
        ("10", "train"): [*TRAIN, "batches.meta"],
        ("10", "val"): ["test_batch", "batches.meta"],
        ("100", "train"): ["train", "meta"],
        ("100", "val"): ["test", "meta"],
    }["10" if files is TEN else "100", split]
    for name in needed:
        kept = {path: raw for path, raw in files.items() if not path.endswith(f"/{name}")}
        assert f"/{name}" in refusal(written(tmp_path / "a.tar", packed(kept)), split)
        if len(kept) > 2:  # fewer do not show what the folder is
            folder = unpack(kept, tmp_path / name)
            assert refusal(folder, split).startswith(f"{folder / name}: no such file")


def test_a_cut_archive_is_named_wherever_it_is_cut(tmp_path):
    files = {name: TEN[name] for name in TEN if "test" not in name}
    for mode in ("w", "w:gz"):
        whole = packed(files, mode)
        end = len(whole) if mode == "w:gz" else len(whole.rstrip(b"\0")) + 1
        for length in np.random.default_rng(0).integers(0, end - 600, 60).tolist() + [3, 511, 512]:
            refusal(written(tmp_path / "a.tar.gz", whole[:length]))
    assert "cut short in 'cifar-10-batches-py/" in refusal(
        written(tmp_path / "a.tar.gz", whole[: len(whole) // 2])
    )
    sizes = [len(raw) for raw in files.values()]
    plain = written(tmp_path / "b.tar", packed(files, "w")[: 512 * 2 + sizes[0] - 1])
    assert refusal(plain) == (
        f"{plain}: the archive is cut short in 'cifar-10-batches-py/data_batch_4'; "
        "download it again"
    )


def test_a_cut_pickle_is_named(tmp_path):
    folder = unpack(TEN, tmp_path)
    raw = TEN["cifar-10-batches-py/data_batch_3"]
    for length in (0, 1, 40, len(raw) // 2, len(raw) - 1):
        (folder / "data_batch_3").write_bytes(raw[:length])
        assert refusal(folder).startswith(f"{folder}: data_batch_3: cannot be read: ")
    (folder / "data_batch_3").write_bytes(raw + b"x")
    assert "data_batch_3: is not one pickled dict" in refusal(folder)


def test_a_changed_byte_is_refused_or_changes_a_value(tmp_path):
    """Damage ends in a DataError or in another pixel, label or name; in nothing else."""
    rng, path = np.random.default_rng(1), tmp_path / "cifar-10-batches-py"
    path.mkdir()
    (path / "batches.meta").write_bytes(TEN["cifar-10-batches-py/batches.meta"])
    raw = batch(1, 2, 10)
    head = raw.index(b"T\x00\x18\x00\x00")
    refused = 0
    for at in [*range(head + 5), *rng.integers(head + 5, len(raw), 60).tolist()]:
        damaged = raw[:at] + bytes([raw[at] ^ int(rng.integers(1, 256))]) + raw[at + 1 :]
        (path / "test_batch").write_bytes(damaged)
        try:
            found = load_split(path, "val")
        except DataError as error:
            assert str(error).startswith(f"{path}: test_batch: ")
            refused += 1
        else:
            assert found.pixels.shape == (2, 32, 32, 3) and found.labels.max() < 10
    assert refused > head / 2


@pytest.mark.parametrize("name", ["test_batch", "batches.meta"])
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_no_command_is_run(name, kind, tmp_path):
    attack = b"\x80\x02" + shell_command(tmp_path / "marker") + b"."
    in_value = b"\x80\x02}U\x04data" + shell_command(tmp_path / "marker") + b"s."
    for raw in (attack, in_value):
        files = {**TEN, f"cifar-10-batches-py/{name}": raw}
        path = unpack(files, tmp_path)
        if kind == "tar":
            path = written(tmp_path / "a.tar.gz", packed(files))
        message = refusal(path, "val")
        assert message.startswith(f"{path}: {name}: cannot be read: refuses ")
        assert ".system: it is not data" in message
    assert not (tmp_path / "marker").exists()


BATCH = {"labels": [1, 2], "data": np.zeros((2, 3072), np.uint8)}
WRONG = {
    "a list": ([1], "is not one pickled dict"),
    "no data": ({"labels": [1, 2]}, "has no data of 3072 bytes"),
    "text for data": ({**BATCH, "data": "x"}, "has no data of 3072 bytes"),
    "wide rows": ({**BATCH, "data": np.zeros((2, 3073), np.uint8)}, "has no data of 3072 bytes"),
    "signed": ({**BATCH, "data": np.zeros((2, 3072), np.int8)}, "has no data of 3072 bytes"),
    "no labels": ({"data": BATCH["data"]}, "has no list of labels"),
    "one label less": ({**BATCH, "labels": [1]}, "2 images but 1 labels"),
    "a label too high": ({**BATCH, "labels": [1, 10]}, "a label is 10; expected 0 to 9"),
    "a label too low": ({**BATCH, "labels": [-1, 1]}, "a label is -1; expected 0 to 9"),
    "a label of text": ({**BATCH, "labels": [1, "2"]}, "a label is of type str"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_is_not_one(case, tmp_path):
    values, reason = WRONG[case]
    files = {**TEN, "cifar-10-batches-py/test_batch": dumps(values)}
    path = written(tmp_path / "a", packed(files))
    message = refusal(path, "val")
    assert message.startswith(f"{path}: test_batch: {reason}")
    assert message.endswith("fetch the archive again")


@pytest.mark.parametrize(
    ("names", "reason"),
    [([], "no list of label_names"), (["a", 1], "are not all text"), (["a", "b", "a"], "twice")],
)
def test_class_names_that_are_none(names, reason, tmp_path):
    meta = dumps({"label_names": names})
    path = written(tmp_path / "a", packed({**TEN, "cifar-10-batches-py/batches.meta": meta}))
    assert f"{path}: batches.meta: " in refusal(path) and reason in refusal(path)


def test_a_label_that_would_take_ages_to_print(tmp_path):
    """Fifty lists, each of them twice in the next: short to write, 2**50 items to walk."""
    nested = b"]q\x64"
    for number in range(101, 150):
        nested = b"](" + nested + b"h" + bytes([number - 1]) + b"eq" + bytes([number])
    raw = (
        b"\x80\x02}(U\x06labels](K\x01" + nested + b"eU\x04data" + dumps(BATCH).split(b"data", 1)[1]
    )
    assert pickle.loads(raw, encoding="bytes")[b"labels"][0] == 1
    path = unpack({**TEN, "cifar-10-batches-py/test_batch": raw}, tmp_path)
    start = time.process_time()
    assert "test_batch: a label is of type list" in refusal(path, "val")
    assert time.process_time() - start < 10


def test_what_is_no_archive_of_cifar(tmp_path):
    """A page in its place, other archives, and the versions for other programs."""
    others = {"cifar-10-batches-bin/data_batch_1.bin": b"x", "readme": b"y"}
    cases = {
        "<html>404 not found</html>"
        * 100: "neither a folder nor a .csv nor a tar archive; download",
        "": "holds no train images of CIFAR; expected cifar-10-python.tar.gz or",
        packed(others): "holds no train images of CIFAR; expected cifar-10-python.tar.gz or",
        b"\x1f\x8b" + b"x" * 600: "the archive is damaged",
    }
    for data, reason in cases.items():
        path = written(tmp_path / "cifar.tar.gz", data.encode() if type(data) is str else data)
        assert refusal(path).startswith(f"{path}: {reason}")


def test_two_archives_in_one(tmp_path):
    both = {"cifar-100-python/meta": HUNDRED["cifar-100-python/meta"], **TEN}
    assert "holds CIFAR-100 and CIFAR-10;" in refusal(written(tmp_path / "a", packed(both)))
    again = "cifar-10-batches-py/data_batch_4"
    twice = {f"x/{again}": TEN[again], **TEN}
    assert "holds more than one data_batch_4" in refusal(written(tmp_path / "b", packed(twice)))


def test_a_folder_that_holds_something_else(tmp_path):
    folder = unpack(TEN, tmp_path)
    (folder / "data_batch_2").unlink()
    (folder / "data_batch_2").mkdir()
    assert refusal(folder).startswith(f"{folder / 'data_batch_2'}: no such file")
    (folder / "data_batch_2").rmdir()
    os.mkfifo(folder / "data_batch_2")  # which would keep a reader waiting
    assert refusal(folder).startswith(f"{folder / 'data_batch_2'}: no such file")
    (folder / "data_batch_2").unlink()
    with (folder / "data_batch_2").open("wb") as file:
        file.truncate((1 << 28) + 1)
    assert "has more than 268,435,456 bytes" in refusal(folder)
