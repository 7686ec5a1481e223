import collections
import os
import pickle
import struct
import tracemalloc

import megengine
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import megengine_pickle
from tests.vision.classification.readers.handmade import reading

read = reading(megengine_pickle)

PROTOCOLS = [2, 3, 4, 5]


class Net(M.Module):
    """Every kind of weight a ResNet has, with a grouped convolution and a biased one."""

    def __init__(self):
        super().__init__()
        self.conv = M.Conv2d(4, 6, 3, groups=2, bias=True)
        self.bn = M.BatchNorm2d(6)
        self.fc = M.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).mean(axis=(2, 3)))


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].flags.c_contiguous and found[name].flags.aligned
        np.testing.assert_array_equal(found[name], array)


def refusal(data):
    with pytest.raises(WeightsError) as caught:
        read(data, "some/weights.pkl")
    message = str(caught.value)
    assert message.startswith("some/weights.pkl: ") and len(message) < 400
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def net():
    return Net()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_megengine_saves(net, protocol, tmp_path):
    expected = net.state_dict()
    assert len(expected) == 8
    for saved in (expected, {"epoch": 3, "state_dict": expected}, {"state_dict": dict(expected)}):
        path = tmp_path / "weights.pkl"
        megengine.save(saved, str(path), pickle_protocol=protocol)
        tensors, metadata = read(path.read_bytes(), str(path))
        same(tensors, expected)
        assert metadata == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_and_parameters(net, protocol):
    saved = net.state_dict(keep_var=True)
    expected = collections.OrderedDict((name, var.numpy()) for name, var in saved.items())
    same(read(pickle.dumps(saved, protocol=protocol), "f")[0], expected)


def test_the_other_keys_of_a_checkpoint_are_ignored(net):
    optimizer = megengine.optimizer.SGD(net.parameters(), lr=0.1, momentum=0.9)
    checkpoint = {
        "epoch": 3,
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best": np.float64(71.5),
        "args": {"lr": 0.1, "milestones": [30, 60, 80], "name": None, 7: (True, b"x")},
    }
    for protocol in PROTOCOLS:
        data = pickle.dumps(checkpoint, protocol=protocol)
        same(read(data, "f")[0], checkpoint["state_dict"])


ARRAYS = {
    "fortran": np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
    "transposed": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 2, 0),
    "every other": np.arange(24, dtype=np.float32)[::2],
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "big-endian fortran": np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)),
    "scalar array": np.array(7, dtype=np.int64),
    "numpy scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "eight dimensions": np.ones((1, 2, 1, 2, 1, 2, 1, 2), np.uint8),
    "bool": np.array([True, False, True]),
    "large": np.arange(100_000, dtype=np.float32),
}
for _code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
    ARRAYS[_code] = np.array([[1, 2], [3, 100]], dtype=_code)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_every_kind(protocol):
    same(read(pickle.dumps(ARRAYS, protocol=protocol), "f")[0], ARRAYS)
    tied = {"a": ARRAYS["i4"], "b": ARRAYS["i4"]}
    found, _ = read(pickle.dumps(tied, protocol=protocol), "f")
    same(found, tied)
    assert found["a"] is found["b"]


def test_names_of_numpy_2_and_of_old_megengine(monkeypatch):
    arrays = {"a": ARRAYS["fortran"]}
    data = pickle.dumps(arrays, protocol=2)
    assert b"cnumpy.core.multiarray\n" in data
    same(read(data.replace(b"cnumpy.core.", b"cnumpy._core."), "f")[0], arrays)

    class Tensor:
        """As before MegEngine 1.0: the array is in the state, not in the arguments."""

        def __init__(self, data):
            self.__dict__.update(data=data, device="xpux", dtype=np.float32, metadata={})

    Tensor.__module__, Tensor.__qualname__ = "megengine.core.tensor", "Tensor"
    monkeypatch.setattr("megengine.core.tensor.Tensor", Tensor, raising=False)
    for protocol in PROTOCOLS:
        data = pickle.dumps({"a": Tensor(arrays["a"])}, protocol=protocol)
        same(read(data, "f")[0], arrays)


def test_a_byte_that_is_no_bool_reads_as_true():
    data = pickle.dumps({"a": np.array([True, False])}, protocol=4)
    assert data.count(b"C\x02\x01\x00") == 1
    array = read(data.replace(b"C\x02\x01\x00", b"C\x02\x07\x00"), "f")[0]["a"]
    assert array.view(np.uint8).tolist() == [1, 0]


class Foreign:
    """Some class of the one who saved the file."""

    def __init__(self):
        self.value = 1


class Shell:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_wherever_it_stands(net, protocol, tmp_path):
    marker = tmp_path / "marker"
    shell = Shell(f"touch {marker}")
    weights = net.state_dict()
    for value in (shell, {**weights, "x": shell}, {"state_dict": weights, "args": [shell]}):
        assert f"refuses {os.system.__module__}.system:" in refusal(pickle.dumps(value, protocol))
    beside = {"state_dict": weights, "x": Foreign()}  # of no use, and not run
    same(read(pickle.dumps(beside, protocol), "f")[0], weights)
    assert "refuses " in refusal(pickle.dumps({**weights, "x": Foreign()}, protocol))
    assert "Foreign" in refusal(pickle.dumps(Foreign(), protocol))
    assert not marker.exists()


def test_a_whole_module_is_refused_by_name(net):
    message = refusal(pickle.dumps(net))
    assert "Net: it is not data" in message
    assert "megengine.save(model.state_dict(), path)" in message


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def dtype_state(order=b"<", subarray=b"N", fields=b"N"):
    minus_one = b"J\xff\xff\xff\xff"
    return b"(K\x03" + text(order) + subarray + b"N" + fields + minus_one * 2 + b"K\x00tb"


def dtype(code=b"f4", state=None):
    call = b"cnumpy\ndtype\n" + text(code) + b"K\x00K\x01\x87R"
    return call + (dtype_state() if state is None else state)


def long(value):
    return b"\x8a\x08" + struct.pack("<q", value)


NEW = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def array(shape=b"K\x02\x85", kind=None, order=b"\x89", data=b"C\x08" + bytes(8), version=b"K\x01"):
    kind = dtype() if kind is None else kind
    return NEW + b"(" + version + shape + kind + order + data + b"tb"


def file(entry, name=b"w"):
    """A state dict with one hand-written entry."""
    return b"\x80\x03}" + text(name) + entry + b"s."


def test_hand_written_files_are_sound():
    same(read(file(array()), "f")[0], {"w": np.zeros(2, np.float32)})
    same(read(file(array(data=text(bytes(8)))), "f")[0], {"w": np.zeros(2, np.float32)})


WRONG = {
    "object dtype": (array(kind=dtype(b"O8")), "a dtype is O8"),
    "text dtype": (array(kind=dtype(b"U4")), "a dtype is U4"),
    "void dtype": (array(kind=dtype(b"V8")), "a dtype is V8"),
    "date dtype": (array(kind=dtype(b"M8")), "a dtype is M8"),
    "long double": (array(kind=dtype(b"f16")), "a dtype is f16"),
    "dtype expression": (array(kind=dtype(b"f4,O")), "a dtype is f4,O"),
    "fields": (array(kind=dtype(state=dtype_state(fields=b"}"))), "structured"),
    "subarray": (array(kind=dtype(state=dtype_state(subarray=b")"))), "structured"),
    "no byte order": (array(kind=dtype(state=dtype_state(b"|"))), "byte order"),
    "dtype without state": (array(kind=dtype(state=b"")), "no dtype"),
    "dtype with state twice": (array(kind=dtype() + dtype_state(b">")), "state that plain"),
    "dtype that is text": (array(kind=text(b"f4")), "no dtype"),
    "2**32 x 2**32": (array(long(2**32) + long(2**32) + b"\x86"), "no size"),
    "2**31 - 1 squared": (array(long(2**31 - 1) * 2 + b"\x86"), "needs"),
    "empty and huge": (array(b"(K\x00" + long(2**31 - 1) * 3 + b"t", data=b"C\x00"), "too large"),
    "too few bytes": (array(b"K\x03\x85"), "needs 12 bytes and has 8"),
    "too many bytes": (array(b"K\x01\x85"), "needs 4 bytes and has 8"),
    "negative": (array(b"J\xff\xff\xff\xff\x85"), "no size"),
    "two negatives": (array(b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"), "no size"),
    "bool size": (array(b"\x88K\x02\x86"), "no size"),
    "float size": (array(b"G@\x00" + bytes(6) + b"\x85"), "no size"),
    "shape that is a list": (array(b"]K\x02a"), "no tuple"),
    "nine dimensions": (array(b"(" + b"K\x01" * 8 + b"K\x02t"), "at most 8"),
    "no order": (array(order=b"N"), "no order"),
    "data that is a list": (array(data=b"]"), "data is of type list"),
    "data that is text": (array(data=text("x漢".encode() * 4)), "latin-1"),
    "state of another version": (array(version=b"K\x02"), "state that numpy"),
    "no data": (NEW, "no data"),
    "filled twice": (array() + array()[len(NEW) :], "filled twice"),
    "a subclass": (array().replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"), "subclass"),
    "another shape function": (
        b"cnumpy\nndarray\n" + long(2**40) + b"\x85R",
        "calls a value of type Inert",
    ),
    "order K, as numpy 2 writes": (
        b"cnumpy._core.numeric\n_frombuffer\n(C\x08" + bytes(8) + dtype() + b"K\x02K\x01\x86"
        b"X\x01\x00\x00\x00KK\x01K\x00\x86tR",
        "neither in C nor in Fortran",
    ),
    "bytes on request": (b"cbuiltins\nbytes\n" + long(2**40) + b"\x85R", "cannot take"),
    "another codec": (b"c_codecs\nencode\n" + text(b"a") + text(b"zip") + b"\x86R", "bytes are"),
    "a dict of something": (b"ccollections\nOrderedDict\n]\x85R", "cannot take"),
    "a Tensor of text": (b"cmegengine.tensor\nTensor\n" + text(b"a") + b"\x85\x81", "no array"),
    "a Tensor of nothing": (b"cmegengine.tensor\nTensor\n)\x81", "holds no array"),
    "a Tensor's state": (b"cmegengine.tensor\nTensor\n)\x81]b", "no dict"),
    "a Tensor with two arrays": (
        b"cmegengine.tensor\nTensor\n" + array() + b"\x85\x81}" + text(b"data") + array() + b"sb",
        "or two",
    ),
    "a number": (b"K\x03", "entry w is of type int"),
    "a deep tuple as a dtype": (
        b"cnumpy\ndtype\n)" + b"\x85" * 20_000 + b"\x85R",
        "a dtype is of type tuple",
    ),
    "a deep tuple as a shape": (array(b")" + b"\x85" * 20_000), "no size"),
    "a deep tuple as a version": (array(version=b")" + b"\x85" * 20_000), "state that numpy"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_do_not_add_up(case):
    entry, expected = WRONG[case]
    tracemalloc.start()
    try:
        assert expected in refusal(file(entry))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "saved",
    [
        3,
        [np.zeros(2)],
        np.zeros(2),
        {1: np.zeros(2)},
        {"param_groups": [], "state": {}},
        {"a": np.zeros(2), "epoch": 3},
        {"a": {"b": np.zeros(2)}},
        {"state_dict": {"a": [1.0, 2.0]}},
        {"a": np.array([None, {}])},
        {"a": np.array(["text"])},
        {"a": np.zeros(2, "M8[s]")},
        {"a": np.zeros(2, "f4,i4")},
        {"a": np.zeros(2, np.complex64)},
    ],
)
def test_what_is_no_state_dict(saved):
    for protocol in PROTOCOLS:
        refusal(pickle.dumps(saved, protocol=protocol))


def test_what_follows_the_end_is_refused():
    assert "4 bytes follow" in refusal(pickle.dumps({"a": np.zeros(2)}) + b"tail")


MEGABYTE = 1 << 20
LATIN1 = text(b"latin1") + b"\x86R"
SHARED = {
    "bytes": (b"B" + struct.pack("<I", MEGABYTE) + bytes(MEGABYTE) + b"q\x01", b"h\x01"),
    "encoded text": (
        b"c_codecs\nencode\nq\x02" + text(bytes(MEGABYTE)) + b"q\x01" + LATIN1,
        b"h\x02h\x01" + LATIN1,
    ),
}


@pytest.mark.parametrize("kind", SHARED)
def test_a_small_file_cannot_fill_the_memory(kind):
    """A thousand arrays over the same megabyte."""
    first, again = SHARED[kind]
    shape = b"J" + struct.pack("<i", MEGABYTE // 4) + b"\x85"
    body = text(b"first") + array(shape, data=first) + b"s"
    for index in range(1000):
        body += text(b"%d" % index) + array(shape, data=again) + b"s"
    tracemalloc.start()
    try:
        assert "and the file has" in refusal(b"\x80\x03}" + body + b".")
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()
