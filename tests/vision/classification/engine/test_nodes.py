"""Which processes a job has: by flags, else by the variables of Slurm and torchrun."""

import os
import shutil

import numpy as np
import pytest

from official.vision.classification import test as test_script
from official.vision.classification import train as train_script
from official.vision.classification.data.folder import load_split
from official.vision.classification.distributed import consistency
from official.vision.classification.distributed.launch import Topology
from official.vision.classification.engine import flags, nodes
from official.vision.classification.errors import TrainingError, UsageError

SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "gpu[3-4]",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
}


def topology_of(*arguments, script=train_script):
    return flags.topology(flags.parse(script.parser(), list(map(str, arguments))))


@pytest.fixture()
def slurm(monkeypatch):
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)


def test_without_flags_and_schedulers_there_is_one_process(caplog):
    for script in (train_script, test_script):
        assert topology_of(script=script) == Topology()
    assert not caplog.text


def test_slurms_variables_count_where_no_flag_is_given(slurm, caplog):
    found = topology_of("--ngpus", 8)
    assert (found.nodes, found.node, found.ngpus) == (2, 1, 8)
    assert (found.address, found.port) == ("gpu3", 24711)
    assert caplog.messages == [
        "by the variables of Slurm this is node 1 of 2, and node 0 is gpu3, port 24711"
    ]
    found = topology_of("--dist-addr", "10.0.0.1", "--dist-port", 99)
    assert (found.nodes, found.address, found.port) == (2, "10.0.0.1", 99)


@pytest.mark.parametrize("given", [("--world-size", 1), ("--rank", 0), ("--distribute", "false")])
def test_flags_come_before_variables(slurm, caplog, given):
    found = topology_of(*given)
    assert (found.nodes, found.node, found.address) == (1, 0, "localhost")
    assert not caplog.text


@pytest.mark.parametrize(
    "address", ["::1", "a b", "host:99", "user@host", "http://host", "", "\033"]
)
def test_an_address_that_is_none(monkeypatch, address):
    """The other nodes would ask for it until their patience ends."""
    flag = () if address == "" else ("--dist-addr", address)
    if flag:
        with pytest.raises(UsageError, match="expected a host's name or an address such as"):
            topology_of("--world-size", 2, *flag)
    monkeypatch.setenv("MASTER_ADDR", address or " ")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="expected a host's name or an address such as"):
        topology_of()


def test_a_job_without_srun_is_told_what_it_leaves_idle(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "4")
    assert topology_of() == Topology()
    (line,) = caplog.messages
    assert line.startswith("Slurm has given this job 4 nodes, and without srun only this one")
    caplog.clear()
    topology_of("--world-size", 1)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "gpu3")  # one of several steps of a job
    assert topology_of() == Topology()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("visible", "taken"),
    [(None, "1"), ("4,5", "5"), ("GPU-a,GPU-b,GPU-c", "GPU-b"), ("7", "7"), ("", "")],
)
def test_each_of_several_processes_takes_a_gpu_of_its_own(slurm, monkeypatch, visible, taken):
    """Unless the scheduler has let each see its own alone."""
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_NODEID", "0")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    if visible is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = topology_of()
    assert (found.nodes, found.node, found.ngpus) == (2, 1, 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken


def test_what_nodes_compare(tmp_path, slurm):
    one, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text("epochs: 3")
    other.write_text("epochs: 4")
    first = topology_of("-c", one, "--data", "/here", "--save", "/x", "-j", 3).settings
    same = topology_of("-c", one, "--data", "/there", "--save", "/y", "-j", 4).settings
    assert first == same and first["--config"].startswith("a file of sha256 ")
    copy = tmp_path / "c.yaml"
    copy.write_text("epochs: 3")
    assert topology_of("-c", copy).settings == first
    changed = topology_of("-c", other, "--skip-broken", "--set", "x=" + "y" * 10_000).settings
    assert {name for name in first if first[name] != changed[name]} == {
        *("--config", "--skip-broken", "--set")
    }
    assert max(map(len, changed.values())) < 200
    for name in ("this project's version", "MegEngine's version", "numpy's version"):
        assert first[name]


def test_the_code_is_compared(monkeypatch, tmp_path):
    whole = nodes._digest_of_code()
    assert whole == nodes._digest_of_code() and len(whole) == 64
    files = []
    digest_of = nodes._digest_of_file
    monkeypatch.setattr(
        nodes, "_digest_of_file", lambda path: files.append(path) or digest_of(path)
    )
    nodes._digest_of_code()
    names = {path.name for path in files}
    assert {"trainer.py", "startup.py", "fine_tune.yaml"} <= names
    assert any(path.suffix == ".cpp" for path in files)


@pytest.mark.parametrize("value", ["\033[2J", "a\0b", "é\n"])
def test_values_that_xml_cannot_hold(slurm, value):
    (text,) = (topology_of("--preprocess", value).settings["--preprocess"],)
    assert text.isprintable()


def test_a_file_that_cannot_be_read_is_named(slurm, tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3")

    def deny(self, *mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(nodes.Path, "open", deny)
    with pytest.raises(UsageError, match="recipe.yaml: cannot be read: Permission denied"):
        topology_of("-c", path)


@pytest.fixture()
def two_ranks(monkeypatch):
    """Rank 0 speaks first; what rank 1 says after it is compared with that."""
    said = {}

    class Ranks:
        number = 0

    def sum_over_ranks(rows):
        key = len(said.setdefault(Ranks.number, []))
        said[Ranks.number].append(rows)
        return rows[[0, 0]] if Ranks.number == 0 else rows + said[0][key]

    for module in (consistency, nodes):
        monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(consistency, "rank", lambda: Ranks.number)
    monkeypatch.setattr(consistency, "sum_over_ranks", sum_over_ranks)

    def compare(first, second):
        said.clear()
        for Ranks.number, images in ((0, first), (1, second)):
            nodes.require_same_images(test=images)

    return compare


def test_images_are_compared_by_number_classes_names_labels_and_content(
    two_ranks, tiny_images, tmp_path
):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_images, copy)
    first, same = load_split(tiny_images, "val"), load_split(copy, "val")
    two_ranks(first, same)

    def differ(said):
        with pytest.raises(TrainingError, match=said):
            two_ranks(first, load_split(copy, "val"))
        shutil.rmtree(copy)
        shutil.copytree(tiny_images, copy)

    (copy / "val/red/4.png").unlink()
    differ("the number of test images is 15 on rank 0 and 14 on rank 1")
    (copy / "val/red").rename(copy / "val/rot")
    differ("the list of classes of the test images differs")
    (copy / "val/red/4.png").rename(copy / "val/red/5.png")
    differ("the list of test images and their classes differs")
    (copy / "val/red/4.png").write_bytes((copy / "val/red/3.png").read_bytes())
    differ("the content of the test images differs")
    relabelled = same.relabel(("green", "blue", "red"), [1, 0, 2])
    object.__setattr__(relabelled, "classes", first.classes)
    with pytest.raises(TrainingError, match="and their classes differs"):
        two_ranks(first, relabelled)
    assert np.array_equal(first.labels, same.labels)
