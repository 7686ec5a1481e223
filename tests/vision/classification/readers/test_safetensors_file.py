import json
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import read_weights, safetensors_file
from tests.vision.classification.readers.handmade import reading

read = reading(safetensors_file)

DTYPES = {"f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64"}
DTYPES.update({"u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "?": "BOOL"})


def file(header, data=b"", length=None):
    """A file of hand-written parts; ``header`` is JSON text or a value."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensor(begin, end, shape=(2,), dtype="F16"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def refusal(data):
    with pytest.raises(WeightsError) as caught:
        read(data, "some/w.safetensors")
    message = str(caught.value)
    assert message.startswith("some/w.safetensors: ") and len(message) < 500
    return message


def test_what_the_library_saves():
    arrays = {"z": np.zeros((2, 3), np.float32), "empty": np.zeros((0, 3), np.float32)}
    arrays.update({code: np.array([[1, 0], [3, 100]], code) for code in DTYPES})
    arrays["scalar"] = np.array(5, np.int64)
    found, metadata = read(save(arrays, {"arch": "resnet50", "note": "é"}), "f")
    assert metadata == {"arch": "resnet50", "note": "é"}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert read(save(arrays), "f")[1] == {}


def test_names_come_in_the_order_of_the_header():
    names = [f"n{index}" for index in range(50)]
    header = {name: tensor(4 * i, 4 * i + 4) for i, name in enumerate(names)}
    for _ in range(3):  # the library's own order changes from call to call
        assert list(read(file(header, bytes(200)), "f")[0]) == names


def test_bfloat16_is_widened():
    # 1.0, -2.5, infinity, and the smallest subnormal: the upper halves of these float32 values
    bits = np.array([0x3F80, 0xC020, 0x7F80, 0x0001], "<u2")
    expected = np.array([1.0, -2.5, np.inf, 9.183549615799121e-41], np.float32)
    found, _ = read(file({"w": tensor(0, 8, (2, 2), "BF16")}, bits.tobytes()), "f")
    assert found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], expected.reshape(2, 2))


def test_a_byte_that_is_no_bool_reads_as_true():
    found, _ = read(file({"w": tensor(0, 3, (3,), "BOOL")}, b"\x00\x01\x07"), "f")
    assert found["w"].view(np.uint8).tolist() == [0, 1, 1]


def twice(first, second):
    pairs = [b'"%s":%s' % (name, json.dumps(entry).encode()) for name, entry in (first, second)]
    return b"{" + b",".join(pairs) + b"}"


SIDES = {
    "a name twice": file(twice((b"a", tensor(0, 4)), (b"a", tensor(0, 4, dtype="I16"))), bytes(4)),
    "a name twice, escaped": file(
        twice((b"a", tensor(0, 4)), (b"\\u0061", tensor(0, 4))), bytes(4)
    ),
    "same bytes": file({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)),
    "overlap": file({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)),
    "hole": file({"a": tensor(0, 4), "b": tensor(6, 10)}, bytes(10)),
    "not at the start": file({"a": tensor(4, 8)}, bytes(8)),
    "offsets reversed": file({"a": tensor(4, 0)}, bytes(4)),
    "negative offset": file({"a": tensor(-4, 0)}, bytes(4)),
    "past the end": file({"a": tensor(0, 8, (4,))}, bytes(4)),
    "bytes follow": file({"a": tensor(0, 4)}, bytes(5)),
    "shape does not fit": file({"a": tensor(0, 4, (3,))}, bytes(4)),
    "negative shape": file({"a": tensor(0, 4, (-1, -2))}, bytes(4)),
    "2**32 x 2**32": file({"a": tensor(0, 4, (2**32, 2**32))}, bytes(4)),
    "2**62 x 4": file({"a": tensor(0, 0, (2**62, 4))}),
    "empty and huge": file({"a": tensor(0, 0, (0, 2**63))}),
    "empty and huger": file({"a": tensor(0, 0, (0, 2**40, 2**40))}),
    "nine dimensions": file({"a": tensor(0, 4, (1,) * 8 + (2,))}, bytes(4)),
    "forty dimensions": file({"a": tensor(0, 4, (1,) * 39 + (2,))}, bytes(4)),
    "float shape": file({"a": tensor(0, 4, (2.0,))}, bytes(4)),
    "8-bit float": file({"a": tensor(0, 2, dtype="F8_E4M3")}, bytes(2)),
    "unknown dtype": file({"a": tensor(0, 4, dtype="O16")}, bytes(4)),
    "no dtype": file({"a": {"shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
    "metadata of numbers": file({"__metadata__": {"a": 1}}),
    "a list": file([]),
    "no JSON": file(b'{"a":'),
    "not UTF-8": file(b'{"\xff":1}'),
    "deep JSON": file(b'{"a":' * 100_000),
    "deep list": file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header past the end": file({"a": tensor(0, 4)}, bytes(4), length=1000),
    "header of 2**60": file({"a": tensor(0, 4)}, bytes(4), length=2**60),
    "header of 2**64 - 1": file({"a": tensor(0, 4)}, bytes(4), length=2**64 - 1),
    "no header": file(b""),
    "four bytes": b"\x02\0\0\0",
}


@pytest.mark.parametrize("case", SIDES)
def test_unsound_files_are_refused(case):
    tracemalloc.start()
    try:
        refusal(SIDES[case])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_the_package_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert "the package safetensors is not installed" in refusal(save({"a": np.zeros(2)}))


def test_messages_say_what_was_found():
    assert "a name comes twice" in refusal(SIDES["a name twice"])
    assert "tensor a is of type F8_E4M3" in refusal(SIDES["8-bit float"])
    assert "9 dimensions; expected at most 8" in refusal(SIDES["nine dimensions"])
    assert "nvalid" in refusal(SIDES["overlap"])


def test_a_large_header_is_refused_before_it_is_parsed(monkeypatch):
    blank = b"{}" + b" " * (9 << 20)
    assert "header has 9,437,186 bytes" in refusal(file(blank))
    # A header within the limit, of tensors without data, is a file like any other.
    many = file({f"n{index}": tensor(0, 0, (0,)) for index in range(2000)})
    assert len(read(many, "f")[0]) == 2000
    monkeypatch.setattr(safetensors_file, "MAX_HEADER_BYTES", 1000)
    assert "expected at most 1,000" in refusal(many)


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("shape", [(0, 2**31, 2**31 - 1), (0, 2**31, 2**30), (2**62, 0, 2)])
def test_empty_tensors_of_absurd_shapes_are_read_or_refused(dtype, shape, tmp_path):
    path = tmp_path / "w"
    path.write_bytes(file({"w": tensor(0, 0, shape, dtype)}))
    try:
        assert read_weights(path).tensors["w"].shape == shape
    except WeightsError as error:
        assert str(error).startswith(f"{path}: cannot be read as a safetensors file: ")
