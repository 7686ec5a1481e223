import struct

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import torch_legacy as reader
from official.vision.classification.readers.torch_legacy import matches
from tests.vision.classification.readers.handmade import (
    FILES,
    MAGIC,
    VERSION,
    memory_below,
    number,
    pickled,
    reading,
    storage,
    tensor,
    text,
    torch_legacy,
)
from tests.vision.classification.readers.test_torch_zip import expected_tensors, same

read = reading(reader)

SIX = np.arange(6, dtype=np.float32)
ROW = (6, SIX.tobytes())


def where(key="0", count=6, kind="FloatStorage", view=b"N"):
    return storage(key, count, kind, view)


def view(key, start, count):
    return b"(" + text(key) + number(start) + number(count) + b"t"


def one(entry, storages=None, keys=b""):
    return torch_legacy(pickled({"w": entry}), storages or {"0": ROW}, keys)


def refusal(data):
    with pytest.raises(WeightsError) as caught:
        read(data, "some/w.pth")
    message = str(caught.value)
    assert message.startswith("some/w.pth: cannot be read as a PyTorch weight file (legacy format)")
    assert message.endswith("save its state dict alone with torch.save(model.state_dict(), path).")
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("name", ["legacy_2.pth", "legacy_4.pth"])
def test_what_torch_saves(name):
    data = (FILES / name).read_bytes()
    assert matches(data[:512])
    found, metadata = read(data, name)
    same(found, expected_tensors())
    assert found["part"] is found["same part"]
    assert metadata == {}


def test_hand_written_files_are_sound():
    same(read(one(tensor(where(), (2, 3), (3, 1))), "f")[0], {"w": SIX.reshape(2, 3)})


def test_the_keys_say_the_order_of_the_storages():
    entries = {"a": tensor(where("1"), (6,)), "b": tensor(where("2"), (6,))}
    data = torch_legacy(pickled(entries), {"2": (6, (SIX + 6).tobytes()), "1": ROW})
    same(read(data, "f")[0], {"a": SIX, "b": SIX + 6})


def test_views_of_storages():
    """As PyTorch 0.x wrote tensors that share memory."""
    entries = {
        "a": tensor(where(view=view("v", 1, 4)), (2, 2), (2, 1)),
        "b": tensor(where(view=view("u", 5, 1)), (1,)),
        "c": tensor(where(view=view("v", 1, 4)), (3,), offset=1),
        "d": tensor(where(), (6,)),
    }
    found, _ = read(torch_legacy(pickled(entries), {"0": ROW}), "f")
    same(found, {"a": SIX[1:5].reshape(2, 2), "b": SIX[5:], "c": SIX[2:5], "d": SIX})


VIEWS = {
    "past the end": (view("v", 3, 4), "view reaches past its end"),
    "before the start": (view("v", -1, 4), "view reaches past its end"),
    "negative": (view("v", 0, -1), "no size"),
    "huge": (view("v", 0, 2**60), "no size"),
    "two parts": (b"(" + text("v") + number(0) + b"t", "view is not as PyTorch"),
    "a key that is a number": (b"(" + number(0) * 3 + b"t", "view is not as PyTorch"),
    "text": (text("v"), "view is not as PyTorch"),
}


@pytest.mark.parametrize("case", VIEWS)
def test_views_that_do_not_fit(case):
    wrong, expected = VIEWS[case]
    assert expected in refusal(one(tensor(where(view=wrong), (1,))))


def test_a_view_has_one_description():
    entries = {"a": tensor(where(view=view("v", 0, 4)), (1,))}
    entries["b"] = tensor(where(view=view("v", 1, 4)), (1,))
    assert "two ways" in refusal(torch_legacy(pickled(entries), {"0": ROW}))


def test_a_tensor_stays_within_its_view():
    assert "which holds 2 numbers" in refusal(one(tensor(where(view=view("v", 0, 2)), (3,))))


GOOD = tensor(where(), (6,))
MODULE = b"(" + text("module") + b"ctorch\nSize\n" + text("net.py") + text("class Net") + b"tQ"
WRONG = {
    "another version": (MAGIC + VERSION.replace(b"\xe9", b"\xea") + b"\x80\x02}.", "is not 1001"),
    "nothing more": (MAGIC, "0 are left"),
    "a module": (one(MODULE), "a network's source code"),
    "four parts": (one(tensor(b"(" + text("storage") * 4 + b"tQ", (6,))), "not as PyTorch writes"),
    "another kind": (one(tensor(b"(" + text("x") * 6 + b"tQ", (6,))), "not as PyTorch writes"),
    "described twice": (
        torch_legacy(pickled({"a": GOOD, "b": tensor(where(count=5), (5,))}), {"0": ROW}),
        "two ways",
    ),
    "a count too small": (one(GOOD, {"0": (5, ROW[1])}), "two ways"),
    "a count of 2**60": (one(GOOD, {"0": (2**60, ROW[1])}), "two ways"),
    "2**47 numbers": (
        one(tensor(where(count=2**47), (6,)), {"0": (2**47, ROW[1])}),
        "needs 562,949,953,421,312 bytes and 24 are left",
    ),
    "a byte too few": (one(GOOD)[:-1], "needs 24 bytes and 23 are left"),
    "a byte too many": (one(GOOD) + b"x", "1 bytes follow its end"),
    "no storage": (one(GOOD)[:-32], "cut off"),
    "another key": (one(GOOD, {"1": ROW}), "not that of its tensors"),
    "a key more": (one(GOOD, {"0": ROW, "1": ROW}), "not that of its tensors"),
    "a key twice": (one(GOOD, keys=b"\x80\x02](" + text("0") * 2 + b"e."), "not that of its"),
    "no keys": (one(GOOD, keys=b"\x80\x02]."), "not that of its tensors"),
    "keys that are a dict": (one(GOOD, keys=b"\x80\x02}."), "no list of keys"),
    "keys that are numbers": (one(GOOD, keys=b"\x80\x02](K\x00e."), "no list of keys"),
    "a key that is a list": (one(GOOD, keys=b"\x80\x02](]e."), "no list of keys"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_do_not_add_up(case):
    data, expected = WRONG[case]
    with memory_below(1 << 20):
        assert expected in refusal(data)


def test_a_storage_of_doubles_has_eight_bytes_each():
    data = one(
        tensor(where(kind="DoubleStorage", count=2), (2,)), {"0": (2, struct.pack("<2d", 3, 4))}
    )
    same(read(data, "f")[0], {"w": np.array([3.0, 4.0])})
