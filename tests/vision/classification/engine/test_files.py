import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import deserialize

from official.vision.classification.engine import files
from official.vision.classification.engine.files import (
    check_target,
    refuse_inside,
    safetensors_bytes,
    write_atomically,
)
from official.vision.classification.errors import UsageError, UserError


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left on device; what was there before is kept"):
        write_atomically(path, b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("inside", ["", "train", "train/a/new.json", "new/deep", "elsewhere/b"])
def test_nothing_is_written_into_a_data_set(tmp_path, inside, monkeypatch):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / "train" / "a").mkdir(parents=True)
    elsewhere.mkdir()
    (data / "val").symlink_to(elsewhere)
    monkeypatch.chdir(tmp_path)
    target = tmp_path / inside if inside.startswith("elsewhere") else data / inside
    for path in (target, target.relative_to(tmp_path), tmp_path / "data" / ".." / target):
        with pytest.raises(UsageError, match="--save .*: lies in the data set"):
            refuse_inside("--save", path, data)


def test_beside_a_data_set_is_not_inside(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("data2", "output", "data-run/train"):
        refuse_inside("--save", tmp_path / name, tmp_path / "data")
    (tmp_path / "list.csv").write_text("")
    refuse_inside("--save", tmp_path / "output", tmp_path / "list.csv")


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    """Root can: --csv /dev/null left a file there."""
    link = tmp_path / "out.csv"
    link.symlink_to("/dev/null")
    for path in (Path("/dev/null"), link):
        with pytest.raises(UsageError, match="--csv .*: is a device or a pipe"):
            check_target("--csv", path)
    check_target("--csv", tmp_path / "new.csv")


TENSORS = {
    "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "bn.steps": np.array([7], np.int64),
    "empty": np.zeros((0, 3), np.float16),
}
METADATA = {"format": "pt", "b": '{"classes": ["Möwe", "\\n \x7f", "\u2028\U0001f426"]}', "a": "1"}


def test_the_library_reads_what_we_order():
    data = safetensors_bytes(TENSORS, METADATA)
    found = dict(deserialize(data))
    assert found.keys() == TENSORS.keys()
    for name, entry in found.items():
        assert entry["shape"] == list(TENSORS[name].shape)
        assert bytes(entry["data"]) == TENSORS[name].tobytes()  # in C order
    end = int.from_bytes(data[:8], "little")
    assert end % 8 == 0 and json.loads(data[8 : 8 + end])["__metadata__"] == METADATA


def test_equal_content_gives_equal_bytes():
    """In processes of their own: what is random in the library is so from one to the next."""
    names = {f"key{number}": str(number) for number in range(8)}
    code = "import sys; from tests.vision.classification.engine.test_files import *; " + (
        f"sys.stdout.buffer.write(safetensors_bytes(TENSORS, {names}))"
    )
    here = safetensors_bytes(dict(reversed(TENSORS.items())), dict(reversed(names.items())))
    for _ in range(2):
        there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
        assert hashlib.sha256(there).digest() == hashlib.sha256(here).digest()
