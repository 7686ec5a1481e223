"""What a hostile file can do: end in a WeightsError, soon, at a bounded cost."""

import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import read_weights
from tests.vision.classification.readers.handmade import (
    FILES,
    POSIX,
    V2,
    field,
    memory_below,
    names_and_arrays,
    number,
    numbers,
    pickled,
    shell_command,
    storage,
    stored,
    tensor,
    text,
    torch_legacy,
    torch_zip,
    value,
    varint,
    with_crc,
)

ROOT = Path(__file__).resolve().parents[4]
ARRAYS = {
    "conv1.weight": (np.arange(54, dtype=np.float32) / 8).reshape(3, 2, 3, 3),
    "bn1.running_var": np.ones(3, np.float32),
    "count": np.array(7),
    "half": np.arange(4, dtype=np.float16),
}


def mindspore_file():
    kinds = {"<f4": "Float32", "<i8": "Int64", "<f2": "Float16"}
    rows = [(n, kinds[a.dtype.str], a.shape, a.tobytes()) for n, a in ARRAYS.items()]
    return b"".join(value(*row) for row in rows)


GOOD = {
    "torch-zip": (FILES / "zip_2.pth").read_bytes(),
    "torch-zip training": (FILES / "training.pth").read_bytes(),
    "torch-legacy": (FILES / "legacy_2.pth").read_bytes(),
    "mindspore": mindspore_file(),
    "mindspore crc": with_crc(mindspore_file()),
    "safetensors": save(ARRAYS),
    "megengine-pickle": pickle.dumps(ARRAYS, 4),
}
FORMATS = {kind: kind.split()[0] for kind in GOOD}


def written(path, data):
    path.write_bytes(data)
    return path


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message


@pytest.fixture(autouse=True)
def _leaves_nothing(tmp_path, monkeypatch):
    """Nothing but the file itself is made beside it, and no process is started."""
    monkeypatch.chdir(tmp_path)

    def deny(*args, **kwargs):
        raise AssertionError("a process was started")

    for name in ("system", "popen", "fork", "execv", "posix_spawn"):
        monkeypatch.setattr(os, name, deny)
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"w"}


@pytest.mark.parametrize("kind", GOOD)
def test_the_files_to_damage_are_sound(kind, tmp_path):
    found = read_weights(written(tmp_path / "w", GOOD[kind]))
    assert found.format == FORMATS[kind] and len(found.tensors) >= 4


def whole_values(kind, length):
    """How many tensors a cut of the MindSpore file leaves whole; None if it cuts one."""
    ends, at = [0], 0
    for name, array in ARRAYS.items():
        kinds = {"<f4": "Float32", "<i8": "Int64", "<f2": "Float16"}
        at += len(value(name, kinds[array.dtype.str], array.shape, array.tobytes()))
        ends.append(at)
    return ends.index(length) if kind.startswith("mindspore") and length in ends else None


@pytest.mark.parametrize("kind", GOOD)
def test_a_cut_file_is_refused(kind, tmp_path):
    """Except that a MindSpore file cut between two tensors is a sound file with fewer of them."""
    data, path = GOOD[kind], tmp_path / "w"
    lengths = random.Random(4).sample(range(len(data)), 100)
    with memory_below(4 << 20):
        for length in lengths:
            written(path, data[:length])
            if whole_values(kind, length):
                assert len(read_weights(path).tensors) == whole_values(kind, length)
            else:
                refusal(path)


def test_a_mindspore_file_cut_between_two_tensors(tmp_path):
    ends = [n for n in range(1, len(GOOD["mindspore"])) if whole_values("mindspore", n)]
    assert len(ends) == 3
    for count, end in enumerate(ends, 1):
        found = read_weights(written(tmp_path / "w", GOOD["mindspore"][:end])).tensors
        assert list(found) == list(ARRAYS)[:count]
        refusal(written(tmp_path / "w", GOOD["mindspore crc"][:end] + b"crc_num"))


CHECKED = ("torch-zip", "torch-zip training", "mindspore crc")


@pytest.mark.parametrize("kind", GOOD)
def test_a_changed_byte_is_refused_or_changes_a_name_or_a_number(kind, tmp_path):
    """150 changes of each of seven files. Formats with checksums give the same tensors or none."""
    data, path = GOOD[kind], tmp_path / "w"
    expected = read_weights(written(path, data)).tensors
    generator = random.Random(5)
    refused, start = 0, time.process_time()
    with memory_below(64 << 20):
        for _ in range(150):
            at, flip = generator.randrange(len(data)), generator.randrange(1, 256)
            written(path, data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            try:
                found = read_weights(path).tensors
            except WeightsError:
                refused += 1
                continue
            if kind in CHECKED:
                assert names_and_arrays(found) == names_and_arrays(expected)
            assert len(found) == len(expected)
            assert sum(a.nbytes for a in found.values()) <= 2 * len(data)
    assert refused > 20
    assert time.process_time() - start < 30


FLOATS = np.arange(6, dtype=np.float32).tobytes()
SOUND = tensor(storage("0", 6), (6,))


def as_zip(instructions):
    return torch_zip(pickled({"w": SOUND, "x": instructions}), {"0": FLOATS})


def as_legacy(instructions):
    entries = {"w": SOUND.replace(number(6) + b"tQ", number(6) + b"NtQ"), "x": instructions}
    return torch_legacy(pickled(entries), {"0": (6, FLOATS)})


def as_plain(instructions):
    return pickled({"x": instructions})


CONTAINERS = {"zip": as_zip, "legacy": as_legacy, "pickle": as_plain}


def test_the_containers_are_sound(tmp_path):
    for make in (as_zip, as_legacy):
        body = SOUND if make is as_zip else SOUND.replace(number(6) + b"tQ", number(6) + b"NtQ")
        found = read_weights(written(tmp_path / "w", make(body))).tensors
        assert found["x"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("place", ["an entry", "a part of one", "a state", "an argument"])
def test_no_command_is_run(container, place, tmp_path):
    attack = shell_command(tmp_path / "marker")
    attack = {
        "an entry": attack,
        "a part of one": b"](" + attack + b"e",
        "a state": b"ccollections\nOrderedDict\n)R" + attack + b"b",
        "an argument": V2 + b"(" + attack * 6 + b"tR",
    }[place]
    data = CONTAINERS[container](attack)
    assert b"system" in data
    message = refusal(written(tmp_path / "w", data))
    if container != "pickle" or place == "an entry":
        assert f"refuses {POSIX}.system: it is not data" in message
    assert not (tmp_path / "marker").exists()


def test_a_command_in_any_pickle_of_a_legacy_file(tmp_path):
    attack = b"\x80\x02" + shell_command(tmp_path / "marker") + b"."
    parts = [b"\x80\x02M\xe9\x03.", b"\x80\x02}.", pickled({}), b"\x80\x02]."]
    magic = GOOD["torch-legacy"][:15]
    for index in range(len(parts)):
        data = magic + b"".join(parts[:index] + [attack] + parts[index + 1 :])
        assert "system: it is not data" in refusal(written(tmp_path / "w", data))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_value_nested_a_million_deep(container, tmp_path):
    deep = b")" + b"\x85" * 10**6
    if container == "legacy":
        deep = b"]" * 10**6 + b"a" * (10**6 - 1)
    start = time.process_time()
    refusal(written(tmp_path / "w", CONTAINERS[container](deep)))
    assert time.process_time() - start < 20


def test_an_identifier_nested_deep(tmp_path):
    deep = b")" + b"\x85" * 20_000 + b"q\x01"
    for make in (as_zip, as_legacy):
        refusal(written(tmp_path / "w", make(deep + b"Q")))
        for count in (5, 6):
            again = b"h\x01" * (count - 1)
            refusal(written(tmp_path / "w", make(b"(" + deep + again + b"tQ")))
            refusal(written(tmp_path / "w", make(V2 + b"(" + deep + again + b"tR")))


BOMBS = {
    "deflated storage": stored(
        {"a/data.pkl": pickled({"w": tensor(storage("0", 1 << 24), (1 << 24,))})}
    ),
    "deflated pickle": stored({"a/data.pkl": bytes(1 << 26)}, zipfile.ZIP_DEFLATED),
    "a number shown 2**40 times": torch_zip(
        pickled({"w": tensor(storage("0", 6), (2**40,), (0,))}), {"0": FLOATS}
    ),
    "the same, legacy": as_legacy(tensor(storage("0", 6, tail=b"N"), (2**31, 2**31), (0, 0))),
    "a storage of 2**46": torch_zip(
        pickled({"w": tensor(storage("0", 2**46), (2**46,))}), {"0": FLOATS}
    ),
    "a legacy storage of 2**46": torch_legacy(
        pickled({"w": tensor(storage("0", 2**46, tail=b"N"), (1,))}), {"0": (2**46, FLOATS)}
    ),
    "a shape of 2**62": as_zip(
        V2 + b"(" + storage("0", 6) + number(0) + numbers((2**62,) * 2) * 2 + b"\x89NtR"
    ),
    "a protobuf length of 2**60": b"\x0a" + varint(2**60) + field(1, b"w") + b"\x12",
    "an inner protobuf length of 2**60": field(1, field(1, b"w") + b"\x12" + varint(2**60)),
    "a million empty values": mindspore_file() + b"\x0a\x00" * 10**6,
    "a million sizes": value("w", "Int8", (1,) * 10**6, b"x"),
    "a safetensors shape of 2**62": save(ARRAYS).replace(b"[3,2,3,3]", b"[9999999]"),
    "a pickled array of 2**62": as_plain(
        b"cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R"
        + number(2**62)
        + b"\x85X\x01\x00\x00\x00CtR"
    ),
    "text of 2**32": b"\x80\x02X\xff\xff\xff\xff",
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_does_not_go_off(case, tmp_path):
    path = written(tmp_path / "w", BOMBS[case])
    if case == "deflated storage":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data/0", bytes(1 << 26))
    start = time.process_time()
    with memory_below(16 << 20):
        refusal(path)
    assert time.process_time() - start < 10


def test_one_array_named_a_thousand_times(tmp_path):
    """The same tensors under many names cost nothing; the same numbers in many shapes do."""
    raw = bytes(1 << 20)
    shared = torch_zip(
        pickled({f"{i}": tensor(storage("0", 1 << 18), (1 << 18,)) for i in range(1000)}),
        {"0": raw},
    )
    with memory_below(32 << 20):
        found = read_weights(written(tmp_path / "w", shared)).tensors
    assert len(found) == 1000 and len({id(array) for array in found.values()}) == 1
    shapes = [((1 << 18) - i,) for i in range(1000)]
    many = pickled({f"{i}": tensor(storage("0", 1 << 18), shape) for i, shape in enumerate(shapes)})
    with memory_below(32 << 20):
        assert "and the file has" in refusal(written(tmp_path / "w", torch_zip(many, {"0": raw})))


KEYS = ["../../w", "/etc/passwd", "../data.pkl", "..", "0/../0", "data.pkl", "0\0"]


@pytest.mark.parametrize("key", KEYS)
def test_a_storage_outside_the_archive(key, tmp_path):
    storages = {"0": FLOATS} if "\0" in key else {"0": FLOATS, key: FLOATS}
    data = torch_zip(pickled({"w": tensor(storage(key, 6), (6,))}), storages)
    assert "expected digits" in refusal(written(tmp_path / "w", data))


def test_a_name_that_comes_twice(tmp_path):
    twice = pickled({"w": SOUND}).replace(b"u.", text("w") + SOUND + b"u.")
    assert "the dict key w comes twice" in refusal(
        written(tmp_path / "w", torch_zip(twice, {"0": FLOATS}))
    )
    float32 = ("w", "Float32", (6,), FLOATS)
    refusal(written(tmp_path / "w", value(*float32) * 2))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile("w", "w") as archive:
        for _ in range(2):
            archive.writestr("a/data.pkl", pickled({}))
    assert "a member's name comes twice" in refusal(tmp_path / "w")


def limited(path, megabytes):
    """Read ``path`` in a process that may have ``megabytes`` more than it has at the start."""
    code = (
        "import resource, sys\n"
        "from official.vision.classification.errors import WeightsError\n"
        "from official.vision.classification.readers import read_weights\n"
        "import google.protobuf.message_factory, google.protobuf.descriptor_pb2\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"limit = pages + ({megabytes} << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        read_weights(path)\n"
        "        sys.exit(path + ' was read')\n"
        "    except WeightsError as error:\n"
        "        print(error)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture()
def _with_processes(monkeypatch, _leaves_nothing):
    monkeypatch.undo()


def test_memory_of_a_whole_process_is_bounded(tmp_path, _with_processes):
    """Unlike tracemalloc, the system's limit also counts what libraries allocate in C."""
    folder = tmp_path / "w"
    folder.mkdir()
    cases = [case for case in BOMBS if case != "deflated storage"]
    paths = [written(folder / f"{i}", BOMBS[case]) for i, case in enumerate(cases)]
    empty = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 16) * 500_000
    tail = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, len(empty), 0, 0)
    paths.append(written(folder / "zip", b"PK\x03\x04" + empty + tail))
    done = limited(paths, 256)
    assert done.returncode == 0, done.stderr
    messages = [line for line in done.stdout.splitlines() if line.startswith(str(folder))]
    assert len(messages) == len(paths)
    assert "not enough memory" not in done.stdout
