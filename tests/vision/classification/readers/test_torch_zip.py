import io
import sys
import zipfile

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import torch_zip as reader
from official.vision.classification.readers.torch_zip import matches
from tests.vision.classification.readers.handmade import (
    FILES,
    memory_below,
    number,
    pickled,
    reading,
    storage,
    stored,
    tensor,
    text,
    torch_zip,
)

read = reading(reader)

SIX = np.arange(6, dtype=np.float32)


def expected_tensors():
    """What make_torch_files.py saves, in numpy."""
    quarters = (np.arange(6).reshape(2, 3) / 4 - 0.5).astype(np.float32)
    found = {f"float{bits}": quarters.astype(f"f{bits // 8}") for bits in (16, 32, 64)}
    found["bfloat16"] = quarters  # all of them are bfloat16's
    for bits in (8, 16, 32, 64):
        found[f"int{bits}"] = np.arange(1, 5).astype(f"i{bits // 8}")
        found[f"uint{bits}"] = np.arange(1, 5).astype(f"u{bits // 8}")
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    part = np.array([[16, 18], [20, 22]], np.float32)
    found.update({"whole": base, "transposed": base.transpose(2, 0, 1)})
    found.update({"part": part, "same part": part})
    found["bool"] = np.array([True, False, True, False, True])
    found["bool transposed"] = np.array([[True, False], [False, True], [True, False]])
    found["half transposed"] = np.array([[0, 3], [1, 4], [2, 5]], np.float32)
    found["expanded"] = np.array([[1.5] * 3, [2.5] * 3], np.float32)
    found["scalar"] = np.array(7)
    found["float scalar"] = np.array(-2.5, np.float32)
    found["empty"] = np.zeros((0, 3), np.float32)
    found["parameter"] = np.array([0, 0.125, 0.25, 0.375], np.float32)
    found["parameter with a state"] = np.array([0, 0.125, 0.25], np.float32)
    return found


def same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].flags.c_contiguous and found[name].flags.aligned, name
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)


def refusal(data):
    with pytest.raises(WeightsError) as caught:
        read(data, "some/w.pth")
    message = str(caught.value)
    assert message.startswith("some/w.pth: cannot be read as a PyTorch weight file: ")
    assert message.endswith("save its state dict alone with torch.save(model.state_dict(), path).")
    assert "\n" not in message and len(message) < 400
    return message


def file(name):
    return (FILES / name).read_bytes()


@pytest.mark.parametrize("name", ["zip_2.pth", "zip_4.pth"])
def test_what_torch_saves(name):
    assert matches(file(name)[:512])
    found, metadata = read(file(name), name)
    same(found, expected_tensors())
    assert found["part"] is found["same part"]
    assert metadata == {}
    assert list(found)[:2] == ["float16", "bfloat16"]  # in the order of the file
    assert "torch" not in sys.modules


def test_a_training_checkpoint():
    found, _ = read(file("training.pth"), "f")
    third = np.arange(3, dtype=np.float32)
    expected = {"0.weight": SIX.reshape(3, 2, 1, 1) / 8, "1.weight": third / 4, "1.bias": third / 2}
    expected["1.running_mean"] = np.zeros(3, np.float32)
    expected["1.running_var"] = np.ones(3, np.float32)
    expected["1.num_batches_tracked"] = np.array(0)
    same(found, expected)


def test_files_without_checksums():
    expected = {"weight": SIX.reshape(2, 3) / 4, "count": np.array(7)}
    same(read(file("no_checksums.pth"), "f")[0], expected)


def test_other_values_are_refused_by_name():
    assert "refuses torch.nn.modules.linear.Linear" in refusal(file("whole_module.pth"))
    assert "TorchScript archive, a program" in refusal(file("torchscript.pt"))


def rewritten(data, change):
    """The archive with its members changed by ``change(name, raw)``; None leaves one out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: change(name, archive.read(name)) for name in archive.namelist()}
    return stored({name: raw for name, raw in members.items() if raw is not None})


def test_big_endian_and_unmarked_files():
    """Each storage's bytes reversed are its numbers reversed, in the other byte order."""

    def reverse(name, raw):
        if name.endswith("byteorder"):
            return b"big"
        return raw[::-1] if name.startswith("zip_2/data/") else raw

    def forget(name, raw):
        return None if name.endswith("byteorder") else raw

    big, _ = read(rewritten(file("zip_2.pth"), reverse), "f")
    for name in ("float16", "bfloat16", "float32", "float64", "int16", "int64", "uint32", "bool"):
        np.testing.assert_array_equal(
            big[name],
            expected_tensors()[name].ravel()[::-1].reshape(expected_tensors()[name].shape),
            strict=True,
        )
    same(read(rewritten(file("zip_2.pth"), forget), "f")[0], expected_tensors())
    other = rewritten(file("zip_2.pth"), lambda n, raw: b"pdp" if n.endswith("byteorder") else raw)
    assert "neither little nor big" in refusal(other)


def one(entry, **storages):
    raws = {"0": SIX.tobytes(), **{key.strip("_"): raw for key, raw in storages.items()}}
    return torch_zip(pickled({"w": entry}), raws)


def test_hand_written_files_are_sound():
    same(read(one(tensor(storage("0", 6), (2, 3), (3, 1))), "f")[0], {"w": SIX.reshape(2, 3)})


def test_numbers_are_not_copied():
    raw = np.arange(1 << 18, dtype=np.float32).tobytes()
    entry = tensor(storage("0", 1 << 18), (1 << 18,))
    files = [torch_zip(pickled({"w" * length: entry}), {"0": raw}) for length in (1, 2, 3, 4)]
    data = next(data for data in files if data.index(raw) % 4 == 0)  # PyTorch aligns them
    with memory_below(1 << 18):
        (found,) = read(data, "f")[0].values()
    assert found[-1] == (1 << 18) - 1


KEYS = {
    "outside": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "another member": "../data.pkl",
    "data.pkl": "data.pkl",
    "empty": "",
    "another script": "٠",
    "signed": "-0",
    "spaced": " 0",
    "dot": "./0",
}


@pytest.mark.parametrize("case", KEYS)
def test_a_storage_is_a_numbered_member_and_nothing_else(case):
    message = refusal(one(tensor(storage(KEYS[case], 6), (6,))))
    assert "a storage's key is" in message and "expected digits" in message


def test_a_number_of_many_digits_is_no_key():
    assert "expected digits" in refusal(one(tensor(storage("0" * 21, 6), (6,))))


def ident(*parts):
    return b"(" + b"".join(parts) + b"tQ"


FLOAT = b"ctorch\nFloatStorage\n"
CPU = text("cpu")
WRONG = {
    "missing": (storage("7", 6), "no member archive/data/7"),
    "too large": (storage("0", 7), "should have 28 bytes and has 24"),
    "too small": (storage("0", 5), "should have 20 bytes and has 24"),
    "huge": (storage("0", 2**60), "no size"),
    "negative": (storage("0", -6), "no size"),
    "of doubles": (storage("0", 6, "DoubleStorage"), "should have 48 bytes"),
    "of complex numbers": (storage("0", 3, "ComplexFloatStorage"), "refuses torch.ComplexFloat"),
    "of integers, quantised": (storage("0", 24, "QInt8Storage"), "refuses torch.QInt8Storage"),
    "five parts of another kind": (
        ident(text("module"), FLOAT, text("0"), CPU, number(6)),
        "not as PyTorch writes it",
    ),
    "four parts": (ident(text("storage"), FLOAT, text("0"), CPU), "not as PyTorch writes it"),
    "six parts": (storage("0", 6, tail=b"N"), "not as PyTorch writes it"),
    "key that is a number": (
        ident(text("storage"), FLOAT, number(0), CPU, number(6)),
        "not as PyTorch writes it",
    ),
    "type that is text": (
        ident(text("storage"), text("f4"), text("0"), CPU, number(6)),
        "has no type",
    ),
    "count that is true": (ident(text("storage"), FLOAT, text("0"), CPU, b"\x88"), "no size"),
    "text": (text("0") + b"Q", "not as PyTorch writes it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_storages_that_do_not_add_up(case):
    where, expected = WRONG[case]
    with memory_below(1 << 20):
        assert expected in refusal(one(tensor(where, (6,))))


def test_a_storage_has_one_description():
    entries = {"a": tensor(storage("0", 6), (6,)), "b": tensor(storage("0", 6, "IntStorage"), (6,))}
    assert "described in two ways" in refusal(torch_zip(pickled(entries), {"0": SIX.tobytes()}))


def test_archives_of_another_kind_are_named():
    assert "without a data.pkl; its first member is word/a.xml" in refusal(
        stored({"word/a.xml": b"x"}, zipfile.ZIP_DEFLATED)
    )
    two = stored({"a/data.pkl": pickled({}), "b/data.pkl": pickled({})})
    assert "more than one data.pkl" in refusal(two)
    assert "archive/data.pkl is compressed" in refusal(
        stored({"archive/data.pkl": pickled({})}, zipfile.ZIP_DEFLATED)
    )


def test_what_follows_the_pickle_is_refused():
    data = torch_zip(pickled({"w": tensor(storage("0", 6), (6,))}) + b"tail", {"0": SIX.tobytes()})
    assert "4 bytes follow the end of data.pkl" in refusal(data)


def test_a_changed_number_is_noticed():
    data = one(tensor(storage("0", 6), (6,)))
    at = data.index(SIX.tobytes())
    changed = data[: at + 5] + bytes([data[at + 5] ^ 1]) + data[at + 6 :]
    assert "checksum of its member archive/data/0 is wrong" in refusal(changed)
