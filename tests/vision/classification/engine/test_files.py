import pytest

from official.vision.classification.engine import files
from official.vision.classification.engine.files import write_atomically
from official.vision.classification.errors import UserError


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
