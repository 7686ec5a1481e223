import numpy as np
import pytest

from official.vision.classification.readers.stored_numbers import (
    ITEM_BYTES,
    decoded,
    numpy_can_hold,
    stored_dtype,
)

CODES = [code for code in ITEM_BYTES if code not in ("bf16", "b1")]


@pytest.mark.parametrize("code", CODES)
def test_numbers_of_every_kind_order_and_layout(code):
    expected = np.arange(24, dtype=code).reshape(2, 3, 4)
    for order in "<>":
        stored = np.frombuffer(expected.astype(order + code).tobytes(), stored_dtype(code, order))
        assert stored.itemsize == ITEM_BYTES[code]
        for axes in ((0, 1, 2), (2, 0, 1)):
            found = decoded(stored.reshape(2, 3, 4).transpose(axes), code)
            assert found.flags.c_contiguous and found.dtype.isnative
            np.testing.assert_array_equal(found, expected.transpose(axes), strict=True)


def test_what_lies_right_is_not_copied():
    stored = np.arange(6, dtype="<f4")
    assert np.shares_memory(decoded(stored, "f4"), stored)


def test_what_lies_between_two_words_is_moved():
    raw = bytes(1) + np.arange(3, dtype="<f4").tobytes()
    found = decoded(np.frombuffer(raw, "<f4", offset=1), "f4")
    assert found.flags.aligned and found.tolist() == [0, 1, 2]


@pytest.mark.parametrize("order", "<>")
def test_bfloat16_is_the_upper_half_of_a_float32(order):
    # As bits, since MegEngine makes the processor round the smallest subnormal to 0.
    bits = np.array([0x3F80, 0xC020, 0x7F80, 0x0001, 0x8000], np.uint16)
    wide = np.array([0x3F800000, 0xC0200000, 0x7F800000, 0x00010000, 0x80000000], np.uint32)
    expected = wide.view(np.float32)
    assert expected[:3].tolist() == [1.0, -2.5, np.inf]
    stored = np.frombuffer(bits.astype(f"{order}u2").tobytes(), stored_dtype("bf16", order))
    found = decoded(stored, "bf16")
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), strict=True)
    assert decoded(stored[0:1].reshape(()), "bf16").shape == ()
    square = np.stack([stored, stored]).T
    np.testing.assert_array_equal(decoded(square, "bf16"), np.stack([expected] * 2).T)
    assert decoded(square, "bf16").flags.c_contiguous


def test_any_byte_but_zero_is_true():
    stored = np.frombuffer(b"\x00\x01\x07\xff\x00\x02", stored_dtype("b1")).reshape(2, 3).T
    found = decoded(stored, "b1")
    assert found.flags.c_contiguous and found.dtype == bool
    assert found.view(np.uint8).tolist() == [[0, 1], [1, 0], [1, 1]]
    assert decoded(stored[0, 1], "b1").shape == ()


def test_what_numpy_can_hold():
    for shape in ((0, 2**31, 2**31, 2**31), (2**61,), (0, 2**61), (2**60,), (0, 2**60), ()):
        sizes = np.iinfo(np.intp).max // 4 >= np.prod([n for n in shape if n], dtype=object)
        assert numpy_can_hold(shape, "f4") == bool(sizes)
    np.empty((0, 2**60), np.float32)
    with pytest.raises(ValueError):
        np.empty((0, 2**61), np.float32)
