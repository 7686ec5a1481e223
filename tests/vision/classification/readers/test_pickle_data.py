import os
import pickle
import time
import tracemalloc

import pytest

from official.vision.classification.readers import pickle_data
from official.vision.classification.readers.pickle_data import Inert, PickleDataError, load

BIG = 1 << 60


class Point:
    """A stand-in such as a reader allows."""

    def __init__(self, x, y=0):
        self.x, self.y, self.state = x, y, None

    def set_state(self, state):
        self.state = state


ALLOWED = {("geo", "Point"): Point, ("geo", "plus"): lambda a, b: a + b, ("geo", "T"): Inert("T")}


def p2(body):
    """A protocol 2 pickle of hand-written instructions."""
    return b"\x80\x02" + body + b"."


def refusal(data, allowed=ALLOWED):
    with pytest.raises(PickleDataError) as caught:
        load(data, allowed)
    return str(caught.value)


PLAIN = [
    None,
    True,
    False,
    (0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63)),
    (1.5, -0.0, float("inf"), 1e-300),
    ("", "name", "é漢😀", "x" * 300, "y" * 70000),
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, [[1]], {"a": {"b": [2]}}],
    {"epoch": 3, 7: "seven", "params": list(range(2500))},
    {str(i): i for i in range(2500)},
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_reads_as_pickle_reads_it(protocol):
    for value in PLAIN:
        data = pickle.dumps(value, protocol=protocol)
        assert load(data, {}) == (pickle.loads(data), len(data))
    data = pickle.dumps([True, 1, 1.0], protocol=protocol)
    assert [type(item) for item in load(data, {})[0]] == [bool, int, float]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_bytes_read_as_pickle_reads_them(protocol):
    values = [b"", b"\x00\xff", b"z" * 300]
    if protocol == 5:
        values.append(bytearray(b"abc"))
    data = pickle.dumps(values, protocol=protocol)
    assert load(data, {})[0] == pickle.loads(data)


def test_shared_values_stay_shared():
    inner = ["x"]
    value, _ = load(pickle.dumps([inner, inner], protocol=4), {})
    assert value[0] is value[1]
    value, _ = load(p2(b"Nr\xff\xff\xff\xff\x85j\xff\xff\xff\xff\x86"), {})
    assert value == ((None,), None)


def test_text_of_python_2_is_latin_1():
    # cPickle of Python 2.7: dumps({"data": "\x00\xff", "n": [1]}, 2)
    data = b"\x80\x02}q\x01(U\x04dataq\x02U\x02\x00\xffU\x01nq\x03]q\x04K\x01au."
    assert load(data, {})[0] == pickle.loads(data, encoding="latin-1")
    assert load(p2(b"T\x02\x00\x00\x00\x00\xff"), {})[0] == "\x00\xff"


def test_pickles_in_a_row_and_other_buffers():
    data = b"junk" + pickle.dumps({"a": 1}, 2) + pickle.dumps([2], 4) + b"tail"
    for buffer in (data, bytearray(data), memoryview(data)):
        first, offset = load(buffer, {}, start=4)
        second, end = load(buffer, {}, start=offset)
        assert (first, second, data[end:]) == ({"a": 1}, [2], b"tail")


def test_allowed_names_are_called_and_given_their_state():
    point, _ = load(p2(b"cgeo\nPoint\nK\x01K\x02\x86\x81}X\x01\x00\x00\x00sK\x05sb"), ALLOWED)
    assert (point.x, point.y, point.state) == (1, 2, {"s": 5})
    data = b"\x80\x04\x8c\x03geo\x8c\x04plus\x93K\x01K\x02\x86R."
    assert load(data, ALLOWED)[0] == 3
    assert load(p2(b"cgeo\nT\n"), ALLOWED)[0] is ALLOWED["geo", "T"]


def test_persistent_ids_go_to_the_callable_and_nowhere_else():
    data = p2(b"(X\x07\x00\x00\x00storageK\x05tQ")
    assert load(data, {}, persistent_load=lambda pid: ("got", pid))[0] == ("got", ("storage", 5))
    assert "outside the file" in refusal(data)


def test_a_callable_that_was_not_allowed_is_not_called():
    called = []
    for call in (b"\x85R", b"\x85\x81"):
        with pytest.raises(PickleDataError):
            load(p2(b"NQN" + call), ALLOWED, persistent_load=lambda pid: called.append)
    assert called == []


class Shell:
    """What an attacker pickles."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_no_code_of_the_file_runs(protocol, tmp_path):
    marker = tmp_path / "marker"
    attacks = [
        (os.system, f"touch {marker}"),
        (eval, f"open({str(marker)!r}, 'w')"),
        (exec, f"open({str(marker)!r}, 'w')"),
        (open, str(marker)),
        (__import__, "os"),
    ]
    for function, argument in attacks:
        data = pickle.dumps({"state_dict": Shell(function, argument)}, protocol=protocol)
        module = {2: {"builtins": "__builtin__"}}.get(protocol, {}).get(
            function.__module__, function.__module__
        )
        assert f"refuses {module}.{function.__name__}:" in refusal(data)
    assert not marker.exists()


CALLS = {
    "a name with a dot": (b"cgeo\nPoint.__init__\n)R", "refuses geo.Point.__init__"),
    "a name that is a list": (b"]]\x93", "a name is not text"),
    "a call of text": (b"X\x01\x00\x00\x00f)R", "calls a value of type str"),
    "a call of a result": (b"cgeo\nPoint\nN\x85R)R", "calls a value of type Point"),
    "a call of an inert name": (b"cgeo\nT\n)R", "calls a value of type Inert"),
    "a call with a list": (b"cgeo\nPoint\n]R", "calls a value of type type"),
    "a call that does not fit": (b"cgeo\nPoint\n)R", "geo.Point is given something"),
    "a call that fails": (b"cgeo\nplus\nNK\x01\x86R", "geo.plus is given something"),
    "an instance of a function": (b"cgeo\nplus\nK\x01K\x02\x86\x81", "no class"),
    "an instance of a foreign class": (
        b"csubprocess\nPopen\nN\x85\x81",
        "refuses subprocess.Popen",
    ),
    "a state for a dict": (b"}}b", "sets the state of a value of type dict"),
    "a state for a class": (b"cgeo\nPoint\n}b", "sets the state of a value of type type"),
    "a state for a function": (b"cgeo\nplus\n}b", "sets the state of a value of type function"),
    "an extension": (b"\x82\x01", "instruction 0x82"),
    "a name of control characters": (b"c\x1b[31m\nx\n", r"refuses \x1b[31m.x"),
    "a name without end": (b"c" + b"m" * 1000, "a name has no end"),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_that_are_refused(case):
    body, expected = CALLS[case]
    assert expected in refusal(p2(body))


BROKEN = {
    "nothing": b"",
    "one byte": b"\x80",
    "no protocol": b"]q\x00.",
    "protocol 0": b"(dp0\n.",
    "protocol 1": b"\x80\x01].",
    "protocol 6": b"\x80\x06].",
    "protocol twice": p2(b"\x80\x02]"),
    "no stop": b"\x80\x02]",
    "stop alone": p2(b""),
    "value left over": p2(b"]]"),
    "mark left over": p2(b"(]"),
    "append to nothing": p2(b"Na"),
    "append to a tuple": p2(b")Na"),
    "append to none": p2(b"a"),
    "items without mark": p2(b"]Ne"),
    "tuple of too few": p2(b"N\x87"),
    "tuple across a mark": p2(b"NN(\x86"),
    "put of nothing": p2(b"q\x00"),
    "get of nothing": p2(b"h\x05"),
    "get of the last memo": p2(b"j\xff\xff\xff\xff"),
    "half a pair": p2(b"}(Nu"),
    "item of a list": p2(b"]NNs"),
    "dict key None": p2(b"}NNs"),
    "dict key bool": p2(b"}\x88Ns"),
    "dict key float": p2(b"}G" + b"\0" * 8 + b"Ns"),
    "dict key tuple": p2(b"}" + b")" + b"\x85" * 100 + b"Ns"),
    "dict key twice": p2(b"}(K\x01NK\x01Nu"),
    "text not UTF-8": p2(b"X\x01\x00\x00\x00\xff"),
    "lone surrogate": p2(b"X\x03\x00\x00\x00\xed\xa0\x80"),
    "short integer": p2(b"J\x01"),
    "integer of nine bytes": p2(b"\x8a\x09" + b"\1" * 9),
    "integer of 2 GiB": p2(b"\x8b\xff\xff\xff\x7f"),
    "long frame": b"\x80\x04\x95" + BIG.to_bytes(8, "little") + b"N.",
    "text of 4 GiB": p2(b"X\xff\xff\xff\xff"),
    "text of 2**60": b"\x80\x04\x8d" + BIG.to_bytes(8, "little") + b".",
    "bytes of 4 GiB": p2(b"B\xff\xff\xff\xff"),
    "bytes of 2**60": b"\x80\x04\x8e" + BIG.to_bytes(8, "little") + b".",
    "bytearray of 2**64 - 1": b"\x80\x05\x96" + b"\xff" * 8 + b".",
    "old text of 4 GiB": p2(b"T\xff\xff\xff\xff"),
    "a set": pickle.dumps({1}, protocol=4),
    "a list in itself": p2(b"]q\x00h\x00a"),
    "a dict in itself": p2(b"}q\x00K\x01h\x00s"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_pickles_are_refused_at_no_cost(case):
    tracemalloc.start()
    try:
        message = refusal(BROKEN[case])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(message) < 200
    assert peak < 1 << 20


def test_every_cut_is_refused():
    for protocol in (2, 3, 4, 5):
        data = pickle.dumps(PLAIN[6:8], protocol=protocol)
        for length in [*range(200), *range(200, len(data), 97)]:
            refusal(data[:length])


NESTED = {
    "tuples": lambda n: p2(b")" + b"\x85" * n),
    "lists": lambda n: p2(b"]" * (n + 1) + b"a" * n),
    "dicts": lambda n: p2(b"}K\x01" * n + b"}" + b"s" * n),
}


@pytest.mark.parametrize("kind", NESTED)
def test_nesting_has_a_limit(kind):
    deepest = pickle_data.MAX_DEPTH - 1  # beside the innermost, which is empty
    value, _ = load(NESTED[kind](deepest), {})
    assert len(repr(value)) > deepest
    assert "nested more than" in refusal(NESTED[kind](deepest + 1))


@pytest.mark.parametrize("kind", ["tuples", "lists"])
def test_a_million_levels_neither_recurse_nor_crash(kind, monkeypatch):
    monkeypatch.setattr(pickle_data, "MAX_INSTRUCTIONS", 3_000_000)
    assert "nested more than" in refusal(NESTED[kind](1_000_000))


def test_depth_counts_through_shared_values():
    # A chain of 50 lists, finished at the top of the result, then reached again 50 levels down.
    body = b"(" + b"]" * 50 + b"a" * 49 + b"q\x00" + b"]" * 50 + b"h\x00" + b"a" * 50 + b"t"
    assert "nested more than" in refusal(p2(body))


def test_sharing_does_not_multiply_the_work():
    # Each list holds the one before it twice: 2**60 paths through 60 values.
    body = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    body = b"(" + body + b"t"
    start = time.perf_counter()
    value, _ = load(p2(body), {})
    assert time.perf_counter() - start < 1
    assert value[60][0] is value[60][1] is value[59]


def test_instructions_have_a_limit(monkeypatch):
    start = time.perf_counter()
    assert "more than 1,000,000 instructions" in refusal(p2(b"N" * 3_000_000))
    assert time.perf_counter() - start < 30
    monkeypatch.setattr(pickle_data, "MAX_INSTRUCTIONS", 100)
    assert load(p2(b")" + b"\x85" * 20 + b"q\x01" * 78), {})
    assert "more than 100 instructions" in refusal(p2(b")" + b"\x85" * 20 + b"q\x01" * 79))
