"""flax's files, of flax itself and put together by hand."""

import struct

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import open_weights
from official.vision.classification.readers.foreign import Foreign
from tests.oracles.files import FOLDER, read_manifest
from tests.oracles.seeded import of_types
from tests.vision.classification.readers.keras_flax.trees import arrays_of, leaves


def text(value):
    return struct.pack("B", 0xA0 | len(value)) + value.encode()


def mapping(entries):
    body = b"".join(text(name) + value for name, value in entries.items())
    return struct.pack("B", 0x80 | len(entries)) + body


def extension(kind, body):
    return struct.pack(">BIB", 0xC9, len(body), kind) + body


def sizes(shape):
    return struct.pack("B", 0x90 | len(shape)) + b"".join(
        struct.pack(">BI", 0xCE, n) for n in shape
    )


def array(shape, dtype, raw):
    return extension(
        1, b"\x93" + sizes(shape) + text(dtype) + struct.pack(">BI", 0xC6, len(raw)) + raw
    )


FLOATS = np.arange(6, dtype="<f4").tobytes()
SOUND = array((2, 3), "float32", FLOATS)


@pytest.fixture
def save(tmp_path):
    def save(data):
        path = tmp_path / "w"
        path.write_bytes(data)
        return path

    return save


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        open_weights(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as a msgpack file of flax: ")
    return str(caught.value)


def test_a_file_of_flax():
    expected = of_types(read_manifest()["flax_model.msgpack"])
    found = arrays_of(FOLDER / "flax_model.msgpack")
    assert found.keys() == {f"params.{name}" for name in expected}
    for name, value in expected.items():
        assert np.array_equal(found[f"params.{name}"], value), name


def test_values_of_every_kind(save):
    values = {
        "nil": (b"\xc0", None),
        "no": (b"\xc2", False),
        "yes": (b"\xc3", True),
        "small": (b"\x07", 7),
        "minus": (b"\xff", -1),
        "u16": (b"\xcd\x01\x02", 258),
        "i64": (b"\xd3" + b"\xff" * 7 + b"\xfe", -2),
        "f32": (b"\xca" + struct.pack(">f", 0.5), 0.5),
        "f64": (b"\xcb" + struct.pack(">d", 0.1), 0.1),
        "str8": (b"\xd9\x02ab", "ab"),
        "list": (b"\x92\x01\xc0", [1, None]),
        "map16": (b"\xde\x00\x01" + text("a") + b"\x01", {"a": 1}),
    }
    contents = open_weights(save(mapping({name: raw for name, (raw, _) in values.items()})))
    assert contents.format == "msgpack"
    assert contents.value == {name: value for name, (_, value) in values.items()}


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [
        ("float32", np.arange(6, dtype="<f4")),
        ("float16", np.arange(6, dtype="<f2")),
        ("float64", np.arange(6, dtype="<f8")),
        ("int8", np.arange(6, dtype="i1")),
        ("uint64", np.arange(6, dtype="<u8")),
        ("bfloat16", (np.arange(6, dtype="<f4").view("<u4") >> 16).astype("<u2")),
    ],
)
def test_numbers_of_every_type(dtype, raw, save):
    found = arrays_of(save(mapping({"x": array((2, 3), dtype, raw.tobytes())})))
    assert found["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_arrays_within_arrays(save):
    data = SOUND
    for _ in range(3000):
        data = extension(1, b"\x93" + data + text("float32") + b"\xc4\x00")
    assert "shape is none" in refusal(save(mapping({"x": data})))


def test_parameters_and_statistics_are_one_tree(save):
    norm = {"params": mapping({"bn": mapping({"scale": SOUND})})}
    data = {**norm, "batch_stats": mapping({"bn": mapping({"mean": SOUND})}), "step": b"\x05"}
    found = leaves(open_weights(save(mapping(data))).value)
    assert list(found) == ["params.bn.scale", "params.bn.mean", "step"]
    both = {**norm, "batch_stats": mapping({"bn": mapping({"scale": SOUND})})}
    assert "scale is a parameter and a statistic" in refusal(save(mapping(both)))


def test_other_extensions_and_types_are_passed_over(save):
    entries = {
        "complex": extension(2, b"12345678"),
        "date": b"\xd6\xff1234",
        "typed": array((1,), "complex64", bytes(8)),
        "within": extension(1, b"\x93" + SOUND + text("float32") + SOUND),
    }
    value = open_weights(save(mapping({"x": SOUND, "complex": entries["complex"]}))).value
    assert isinstance(value["complex"], Foreign)
    for name in ("date", "typed"):
        assert isinstance(open_weights(save(mapping({"x": entries[name]}))).value["x"], Foreign)
    assert "shape is none" in refusal(save(mapping({"x": entries["within"]})))


REFUSED = {
    "a length of 2**32": (mapping({"x": b"\xc6\xff\xff\xff\xff12"}), "are needed"),
    "a map of 2**32": (mapping({"x": b"\xdf\xff\xff\xff\xff"}), "values are announced"),
    "a list of 2**32": (mapping({"x": b"\xdd\xff\xff\xff\xff"}), "values are announced"),
    "the end is missing": (mapping({"x": SOUND})[:-1], "are needed"),
    "bytes after the end": (mapping({"x": SOUND}) + b"\x01", "1 bytes follow its end"),
    "a key twice": (b"\x82" + (text("x") + SOUND) * 2, "the key x comes twice"),
    "deep": (mapping({"x": b"\x91" * 100 + b"\x01"}), "deep"),
    "many": (mapping({"x": b"\xdd" + struct.pack(">I", 300_000) + b"\x01" * 300_000}), "values"),
    "another size": (mapping({"x": array((2, 4), "float32", FLOATS)}), "has 24 bytes"),
    "a negative size": (mapping({"x": extension(1, b"\x93\x91\xff\xa1f\xc4\x00")}), "shape"),
    "no meaning": (mapping({"x": b"\xc1"}), "0xc1 has no meaning"),
    "a key that is a list": (b"\x81\x91\x01\x01", None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_damaged_is_refused(case, save):
    data, reason = REFUSED[case]
    if reason is None:  # not a file that starts with a name
        with pytest.raises(WeightsError):
            open_weights(save(data))
    else:
        assert reason in refusal(save(data))
