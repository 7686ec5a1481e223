"""Strict YAML: what PyYAML's safe loader reads of plain values, and what is refused, soon."""

import json
import math
import os
import random
import time

import pytest
import yaml

from official.vision.classification import test, train
from official.vision.classification.readers.yaml_file import (
    MAX_BYTES,
    MAX_DEPTH,
    read_yaml,
    read_yaml_file,
)


def plain_value(rng, depth=0):
    kind = rng.randrange(9 if depth < 5 else 7)
    if kind == 7:
        return [plain_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {rng.choice(WORDS): plain_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return (
        None,
        rng.random() < 0.5,
        rng.randrange(-(10**6), 10**6),
        rng.uniform(-1, 1) * 10.0 ** rng.randrange(-30, 30),
        rng.choice(WORDS),
        rng.choice([math.inf, -math.inf, 0.0, 1.5e22]),
        "".join(chr(rng.randrange(32, 127)) for _ in range(8)),
    )[kind]


WORDS = [
    "a",
    "no",
    "007",
    "1e3",
    "<<",
    "=",
    "~",
    "2001-01-01",
    "a b: c",
    "山猫",
    "0x10",
    "1:30",
    "",
]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("style", [None, True, False, "json"])
def test_what_is_written_is_read(seed, style):
    value = plain_value(random.Random(seed))
    text = (
        json.dumps(value, ensure_ascii=False).replace("Infinity", ".inf")  # JSON itself has none
        if style == "json"
        else yaml.safe_dump(value, default_flow_style=style, allow_unicode=True)
    )
    assert read_yaml(text) == value
    assert read_yaml("\ufeff" + text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("---\n...\n", None),
        ("yes", True),
        ("'yes'", "yes"),
        ("yes: yes", {"yes": True}),
        ("010", 10),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1e-4", "1e-4"),
        ("1.0e-4", 1e-4),
        ("!!str 010", "010"),
        ("!!float 1", 1.0),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),  # as PyYAML writes one list twice
        ("<<: {a: 1}\nb: 2", {"<<": {"a": 1}, "b": 2}),  # merged into nothing
        ("10" * 9, int("10" * 9)),
    ],
)
def test_what_is_read_in_its_own_way(text, value):
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)


MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
ALIASES = "a0: &a0 [1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
REFUSED = {
    "a set": "a: !!set {b}",
    "a pair list": "a: !!omap [b: 1]",
    "bytes": "a: !!binary YQ==",
    "a name of Python": "a: !!python/name:os.system x",
    "a tag of its own": "a: !mine x",
    "a key twice": "a: 1\nb: 2\n'a': 3",
    "a key twice within": "a: {b: 1, b: 2}",
    "a list as a key": "[a]: 1",
    "an alias as a key": "a: &a b\n*a : 1",
    "an alias of nothing": "a: *b",
    "a list in itself": "&a [*a]",
    "several documents": "a: 1\n---\nb: 2",
    "a long number": "9" * 200_000,
    "a long number by sixties": ":".join(["1"] * 100_000),
    "a long float": "1." + "9" * 100_000,
    "no date": "2001-99-99",
    "no boolean": "!!bool maybe",
    "an open list": "[",
    "a tab": "a:\n\t- b",
    "a null character": "a\0b",
    "deep lists": "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
    "deep and open lists": "[" * 200_000,
    "deep mappings": "".join(" " * n + "a:\n" for n in range(MAX_DEPTH + 5)),
    "deep dashes": "- " * 10_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_plain_is_refused_soon(text):
    start = time.process_time()
    with pytest.raises(ValueError) as caught:
        read_yaml(text)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [MERGES, ALIASES], ids=["merges", "aliases"])
def test_references_to_references_cost_no_more_than_their_text(text):
    """PyYAML copies the mappings that are merged: 9 ** 8 keys, for minutes."""
    start = time.process_time()
    values = read_yaml(text)
    assert time.process_time() - start < 2
    assert values["a1"] in ([[1]] * 9, {"<<": [{"k": 1}] * 9})


def test_the_deepest_that_is_read():
    value = read_yaml("[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH):
        (value,) = value
    assert value == 1


def test_a_large_file(tmp_path):
    """A class map for the classes of ImageNet-21k; and one byte more than is read."""
    path = tmp_path / "map.yaml"
    path.write_text("".join(f"n{n:08}: {n}\n" for n in range(21_843)))
    assert len(read_yaml_file(path)) == 21_843
    path.write_bytes(b"#" * MAX_BYTES)
    assert read_yaml_file(path) is None
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        read_yaml_file(path)


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path.joinpath("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            read_yaml_file(path)
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(OSError) as caught:
            read_yaml_file(path)
        assert caught.value.strerror


@pytest.mark.parametrize(
    "text", [MERGES, "a: !!set {b}", "[" * 5000], ids=["merges", "set", "deep"]
)
def test_through_the_scripts(text, tmp_path, capsys):
    """Each says in one line which flag and which file."""
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    data = ["--data", str(tmp_path)]
    for main, flags in (
        (train.main, ["-c", str(path), "--dry-run"]),
        (train.main, ["--preprocess", str(path), "--dry-run"]),
        (test.main, ["--preprocess", str(path)]),
    ):
        start = time.process_time()
        assert main([*data, *flags]) == 2
        assert time.process_time() - start < 5
        out, err = capsys.readouterr()
        assert str(path) in err or "error: preprocess: " in err
        assert err.count("\n") == 1 and len(err) < 500, err
    assert train.main([*data, "--dry-run", "--set", f"ema={text}"]) == 2
    out, err = capsys.readouterr()
    assert ("--set ema=" in err or "flags: " in err) and err.count("\n") == 1
