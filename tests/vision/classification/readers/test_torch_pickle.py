import pickle
import time

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import STATE_DICT_ENTRIES, Contents, state_dict
from official.vision.classification.readers.foreign import Foreign
from official.vision.classification.readers.lenient_pickle import load_leniently
from official.vision.classification.readers.pickle_data import PickleDataError
from official.vision.classification.readers.torch_pickle import NAMES, checked_storage
from tests.vision.classification.readers.handmade import (
    V2,
    memory_below,
    number,
    numbers,
    pickled,
    storage,
    tensor,
    text,
)

TWELVE = np.arange(12, dtype=np.float32)
WHERE = storage("0", 12)


class Given:
    """Storage "0" holds 0 to 11, of any type."""

    def __init__(self):
        self.made = None

    def __call__(self, identifier):
        _, kind, _, _, count = identifier
        if self.made is None:
            self.made = checked_storage(kind, count)
            self.made.data = memoryview(TWELVE.astype(kind.code).tobytes())
        return self.made


def arrays(data, file_bytes=10_000):
    value, _ = load_leniently(data, NAMES, Given())
    contents = Contents(value, lambda fault: WeightsError(str(fault)), file_bytes)
    stored = state_dict(contents)
    contents.arrays(stored)  # raises what is wrong
    made = {tensor.place: tensor.to_numpy() for tensor in stored.values()}
    return {name: made[tensor.place] for name, tensor in stored.items()}


def array(entry):
    return arrays(pickled({"w": entry}))["w"]


def refusal(data, **options):
    with pytest.raises((PickleDataError, WeightsError)) as caught:
        arrays(data, **options)
    assert len(str(caught.value)) < 250
    return str(caught.value)


def call(name, *args):
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode() + b"(" + b"".join(args) + b"tR"


PLACE = number(2), numbers((2, 3)), numbers((5, 1))
EXPECTED = [[2, 3, 4], [7, 8, 9]]
V2_TAIL = b"\x88", call("collections.OrderedDict")
SPELLINGS = {
    "0.3": call("torch._utils._rebuild_tensor", WHERE, *PLACE),
    "1": call("torch._utils._rebuild_tensor_v2", WHERE, *PLACE, *V2_TAIL),
    "2": call("torch._utils._rebuild_tensor_v2", WHERE, *PLACE, *V2_TAIL, b"}"),
    "torch.Size": call(
        "torch._utils._rebuild_tensor", WHERE, PLACE[0], call("torch.Size", PLACE[1]), PLACE[2]
    ),
}
DATA = SPELLINGS["1"]
SPELLINGS["Parameter"] = call("torch._utils._rebuild_parameter", DATA, *V2_TAIL)
SPELLINGS["Parameter with a state"] = call(
    "torch._utils._rebuild_parameter_with_state", DATA, *V2_TAIL, b"}"
)
SPELLINGS["Parameter of 0.3"] = call("torch.nn.parameter.Parameter", DATA, b"\x88") + (
    b"\x88\x89" + call("collections.OrderedDict") + b"\x87b"
)
SPELLINGS["Variable of 0.3"] = call("torch.autograd.variable.Variable", DATA) + b"\x88\x89N\x87b"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_tensor(spelling):
    found = array(SPELLINGS[spelling])
    np.testing.assert_array_equal(found, np.array(EXPECTED, np.float32), strict=True)


@pytest.mark.parametrize("kind", ["Double", "Half", "Long", "Int", "Short", "Char", "Byte"])
def test_every_type_of_storage(kind):
    found = array(tensor(storage("0", 12, f"{kind}Storage"), (2, 3), (5, 1), 2))
    codes = {"Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2"}
    codes.update({"Char": "i1", "Byte": "u1"})
    np.testing.assert_array_equal(found, np.array(EXPECTED, codes[kind]), strict=True)


LAYOUTS = [((3, 4), (4, 1), 0), ((4, 3), (1, 4), 0), ((2, 2), (6, 2), 1), ((), (), 11)]
LAYOUTS += [
    ((12,), (1,), 0),
    ((2, 3), (0, 1), 4),
    ((1, 12), (99, 1), 0),
    ((2, 1, 2), (3, 2**62, 1), 5),
]


@pytest.mark.parametrize("size,stride,offset", LAYOUTS)
def test_layouts(size, stride, offset):
    """Number (i, j, ...) lies at offset + i * stride[0] + j * stride[1] + ..."""
    found = array(tensor(WHERE, size, stride, offset))
    assert found.shape == size and found.flags.c_contiguous
    for index in np.ndindex(*size):
        assert found[index] == offset + sum(i * step for i, step in zip(index, stride))


def v3(dtype, kind="UntypedStorage", module="torch.storage", count=12):
    where = storage("0", count, kind).replace(b"ctorch\n", b"c" + module.encode() + b"\n")
    return call(
        "torch._utils._rebuild_tensor_v3",
        where,
        number(0),
        numbers((2,)),
        numbers((1,)),
        *V2_TAIL,
        dtype,
    )


def test_untyped_storages():
    for module, kind in (
        ("torch", "Untyped"),
        ("torch.storage", "Untyped"),
        ("torch.storage", "_Untyped"),
    ):
        found = array(v3(b"ctorch\nuint16\n", f"{kind}Storage", module))
        np.testing.assert_array_equal(found, np.array([0x0100, 0x0302], np.uint16), strict=True)
    assert "other than its storage's" in refusal(
        pickled({"w": v3(b"ctorch\nuint16\n", "FloatStorage", "torch")})
    )
    assert "no dtype" in refusal(pickled({"w": v3(b"N")}))
    assert "refuses torch.float8_e4m3fn" in refusal(pickled({"w": v3(b"ctorch\nfloat8_e4m3fn\n")}))
    # Twelve bytes are six numbers of two bytes.
    wide = v3(b"ctorch\nuint64\n")
    assert "which holds 1 numbers" in refusal(pickled({"w": wide}))


ZERO, SIX, ONE = number(0), numbers((6,)), numbers((1,))


def placed(offset=ZERO, size=SIX, stride=ONE, where=WHERE):
    return V2 + b"(" + where + offset + size + stride + b"\x89NtR"


TOO_LARGE = 2**62
WRONG = {
    "no storage": (placed(where=b"N"), "no storage"),
    "storage that is text": (placed(where=text("0")), "no storage"),
    "past the end": (placed(number(7)), "past the end"),
    "one past the end": (placed(number(12), numbers((1,))), "past the end"),
    "0-d past the end": (placed(number(12), b")", b")"), "past the end"),
    "stride past the end": (placed(stride=numbers((3,))), "past the end"),
    "negative offset": (placed(number(-1)), "no position"),
    "offset that is true": (placed(b"\x88"), "no position"),
    "offset that is a list": (placed(b"]"), "no position"),
    "negative stride": (placed(number(11), stride=numbers((-1,))), "no size"),
    "negative size": (placed(size=numbers((-6,))), "no size"),
    "two negative sizes": (placed(size=numbers((-2, -3)), stride=numbers((3, 1))), "no size"),
    "size that is true": (placed(size=b"\x88\x85"), "no size"),
    "float size": (placed(size=b"(G" + bytes(8) + b"t"), "no size"),
    "shape that is a list": (placed(size=b"](K\x06e"), "no tuple"),
    "two strides": (placed(stride=numbers((1, 1))), "1 sizes and 2 strides"),
    "nine dimensions": (placed(size=numbers((1,) * 9), stride=numbers((1,) * 9)), "at most 8"),
    "gigantic": (placed(size=numbers((TOO_LARGE,) * 8), stride=numbers((0,) * 8)), "too large"),
    "gigantic stride": (placed(size=numbers((2,)), stride=numbers((TOO_LARGE,))), "past the end"),
    "empty and gigantic": (
        placed(size=numbers((0, TOO_LARGE, 4)), stride=numbers((0,) * 3)),
        "too large",
    ),
    "a Parameter of text": (call("torch._utils._rebuild_parameter", text("x")), "no tensor"),
    "a torch.Size of a list": (call("torch.Size", b"]"), "no tuple"),
    "a number": (b"K\x03", "entry w is of type int; expected a tensor"),
    "a dict": (
        b"}",
        "entry w is of type dict; expected a tensor",
    ),
    "an unknown value": (b"cargparse\nNamespace\n)\x81", "refuses argparse.Namespace"),
    "a tensor on another device": (
        call("torch._utils._rebuild_device_tensor_from_numpy", b"N"),
        "refuses torch._utils._rebuild_device_tensor_from_numpy",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_do_not_add_up(case):
    entry, expected = WRONG[case]
    with memory_below(1 << 20):
        assert expected in refusal(pickled({"w": entry}))


def test_empty_tensors():
    found = array(placed(number(99), numbers((0, 3)), numbers((3, 1))))
    assert found.shape == (0, 3) and found.dtype == np.float32
    found = array(tensor(storage("0", 12, "BFloat16Storage").replace(b"BFloat16", b"Half"), (0,)))
    assert found.shape == (0,) and found.dtype == np.float16


def test_where_the_state_dict_lies():
    inner = b"}" + text("w") + DATA + b"s"
    other = b"}" + text("v") + DATA + b"s"
    for entry in STATE_DICT_ENTRIES:
        data = pickled({"epoch": b"K\x03", entry: inner, "optimizer": b"}"})
        assert list(arrays(data)) == ["w"]
    for first, second in zip(STATE_DICT_ENTRIES, STATE_DICT_ENTRIES[1:]):
        assert list(arrays(pickled({second: other, first: inner}))) == ["w"]
    assert list(arrays(pickled({"state_dict_ema": other, "state_dict": inner}))) == ["w"]
    assert list(arrays(pickled({"model": other, "state_dict": inner}))) == ["w"]
    # A tensor of that name is a tensor.
    assert list(arrays(pickled({"model": DATA, "x": DATA}))) == ["model", "x"]
    assert "of type int" in refusal(pickled({"epoch": b"K\x03"}))
    assert "a value of type list" in refusal(b"\x80\x02].")
    assert "a value of type Tensor" in refusal(b"\x80\x02" + DATA + b".")
    assert "entry 3 is of type Tensor" in refusal(b"\x80\x02}K\x03" + DATA + b"s.")


def test_ordered_dicts_of_python_2_and_3():
    pair = lambda name: b"](" + text(name) + DATA + b"e"  # noqa: E731
    python_2 = call("collections.OrderedDict", b"](" + pair("b") + pair("a") + b"e")
    metadata = b"}" + text("_metadata") + call("collections.OrderedDict") + b"sb"
    python_3 = call("collections.OrderedDict") + b"(" + text("b") + DATA + text("a") + DATA + b"u"
    for value in (python_2, python_3, python_3 + metadata):
        found = arrays(b"\x80\x02" + value + b".")
        assert list(found) == ["b", "a"] and found["a"].tolist() == EXPECTED


PAIRS = {
    "text": (text("ab"), "no list"),
    "a dict": (b"}", "no list"),
    "a pair of three": (b"](](" + text("a") * 3 + b"ee", "an item without a key"),
    "a pair of text": (b"](" + text("ab") + b"e", "an item without a key"),
    "a key that is a list": (b"](](]Nee", "an item without a key"),
    "a key twice": (b"](](" + text("a") + b"Ne](" + text("a") + b"Nee", "a comes twice"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_ordered_dicts_that_are_none(case):
    pairs, expected = PAIRS[case]
    assert expected in refusal(b"\x80\x02" + call("collections.OrderedDict", pairs) + b".")


IGNORED = {
    "a Namespace": b"cargparse\nNamespace\n)\x81}" + text("lr") + b"K\x01sb",
    "a Counter": call("collections.Counter", b"}K\x1eK\x01s"),
    "a path": call("pathlib.PosixPath", text("/"), text("runs")),
    "a path of Python 3.13": call("pathlib._local.PosixPath", text("/")),
    "a device": call("torch.device", text("cuda"), b"K\x00"),
    "a dtype": b"ctorch\nfloat16\n",
    "MMEngine's buffer": b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}"
    + (text("mean") + call("__builtin__.getattr", call("torch.Size", b")"), text("mean")) + b"sb"),
    "a numpy number": pickle.dumps(np.float64(2.5), 2)[2:-1],
    "a numpy array": pickle.dumps(np.arange(3), 2)[2:-1],
}


@pytest.mark.parametrize("case", IGNORED)
def test_what_a_training_run_leaves_is_ignored(case):
    body = b"}" + text("w") + DATA + b"s"
    assert list(arrays(pickled({"extra": IGNORED[case], "state_dict": body}))) == ["w"]


def test_an_ignored_getattr_gets_nothing():
    data = b"\x80\x02" + call("builtins.getattr", text("x"), text("upper")) + b"."
    value, _ = load_leniently(data, NAMES)
    assert type(value) is Foreign and not (value.items or value.state)


def shown_again(count):
    """One number, shown ``count`` times by a stride of 0."""
    return tensor(WHERE, (count,), (0,))


def test_a_small_file_cannot_fill_the_memory():
    with memory_below(1 << 20):
        message = refusal(pickled({"w": shown_again(2**40)}), file_bytes=10_000)
    assert "its tensors take 4,398,046,511,104 bytes and the file has 10,000" in message
    many = pickled({f"{index}": tensor(WHERE, (5,), (1,), index % 8) for index in range(100)})
    assert len(arrays(many, file_bytes=160)) == 100  # eight places of 20 bytes
    assert "take 160 bytes" in refusal(many, file_bytes=159)


def test_tensors_at_one_place_share_an_array():
    places = {"a": ((3,), (1,)), "b": ((3,), (1,)), "c": ((4,), (1,)), "d": ((3,), (2,))}
    entries = {name: tensor(WHERE, *place) for name, place in places.items()}
    found = arrays(pickled({**entries, "e": tensor(WHERE, *places["a"], offset=1)}))
    assert found["a"] is found["b"]
    assert [array.tolist() for array in found.values()] == [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 2, 4],
        [1, 2, 3],
    ]


def seconds(data):
    start = time.process_time()
    refusal(data)
    return time.process_time() - start


def test_arguments_named_again_and_again_take_no_time():
    """A tuple of 200,000 values and a list of 50,000 pairs, each handed over 50,000 times."""
    items = b"(" + b"N" * 200_000 + b"tq\x01"
    calls = b"cargparse\nNamespace\nq\x02" + b"h\x01R" + b"h\x02h\x01R" * 50_000
    assert seconds(b"\x80\x02" + items + calls + b".") < 5
    pairs = b"](" + b"".join(b"](" + number(i) + b"Ne" for i in range(50_000)) + b"eq\x01"
    again = b"ccollections\nOrderedDict\nq\x02" + b"h\x01\x85R" + b"h\x02h\x01\x85R" * 50_000
    assert seconds(b"\x80\x02" + pairs + again + b".") < 5
