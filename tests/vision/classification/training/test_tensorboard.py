import struct
import sys
from dataclasses import replace

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from official.vision.classification.engine.console import read_metrics
from official.vision.classification.engine.trackers import EventWriter
from official.vision.classification.errors import UsageError, UserError
from official.vision.classification.training.trainer import train
from tests.scripts import load_script

pytestmark = pytest.mark.usefixtures("small")


def read_events(folder):
    """What is in a folder's files, in the order of their names.

    A record is its length in eight bytes, their checksum in four, the data, and its checksum
    (TensorFlow's TFRecord format).
    """
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def scalars(events):
    """Values by name and step, as TensorBoard shows them after a restart of the writer."""
    found = {}
    for event in events:
        if event.session_log.status == SessionLog.START:
            found = {key: value for key, value in found.items() if key[1] < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value.simple_value
    return found


def expected(rows):
    return {
        (f"{row['event']}/{name}", row["step"]): pytest.approx(value, rel=1e-6)
        for row in rows
        for name, value in row.items()
        if name not in ("event", "step") and type(value) in (int, float)
    }


def test_the_events_are_the_metrics(config, folder):
    assert train(replace(config, trackers=("tensorboard",))) == 0
    found = scalars(read_events(folder / "tensorboard"))
    assert found == expected(read_metrics(folder))
    assert {name for name, _ in found} >= {"train/loss", "train/lr", "epoch/val_top1"}


def test_a_resumed_run_takes_back_what_it_writes_again(config, folder):
    """As after a kill in the third epoch: the second one's checkpoint, and events beyond it."""
    config = replace(config, trackers=("tensorboard",), keep=3)
    assert train(config) == 0
    for name in ("checkpoint", "checkpoint-9"):
        (folder / f"{name}.safetensors").unlink()
    assert train(replace(config, resume="auto")) == 0
    found = scalars(read_events(folder / "tensorboard"))
    assert found == expected(read_metrics(folder))


def test_a_row_is_on_the_disk_at_once(tmp_path):
    """A run that is killed leaves what it has shown."""
    writer = EventWriter(tmp_path)
    for step in (1, 2):
        writer.add({"event": "train", "step": step, "loss": 0.5, "note": "a word"})
        assert scalars(read_events(tmp_path))["train/loss", step] == 0.5
    assert len(scalars(read_events(tmp_path))) == 2


def test_without_the_flag_there_are_none(config, folder):
    assert train(config) == 0
    assert not (folder / "tensorboard").exists()


def test_a_run_that_is_refused_leaves_no_events(config, folder):
    assert train(config) == 0
    with pytest.raises(UserError, match="holds a run already"):
        train(replace(config, trackers=("tensorboard",)))
    assert not (folder / "tensorboard").exists()


def test_without_the_package_there_is_one_clear_line(
    tiny_images, tiny_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UsageError, match="pip install tensorboardX"):
        EventWriter(tmp_path / "events")
    flags = ["--data", tiny_images, "-c", tiny_recipe, "--arch", "resnet20_cifar", "--tensorboard"]
    flags += ["--device", "cpu", "--save", tmp_path / "run"]
    assert load_script("train.py").main(list(map(str, flags))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: error: --tensorboard: needs the package tensorboardX")
    assert not (tmp_path / "run").exists()
