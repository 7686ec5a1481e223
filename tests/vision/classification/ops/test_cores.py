"""Limits of CPU time as control groups write them; the files are of the forms that Linux has."""

import os

import pytest

from official.vision.classification.ops import cores

V2_MOUNT = "30 23 0:26 {root} {place} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "32 31 0:29 {root} {place} rw,relatime - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture()
def machine(tmp_path, monkeypatch):
    """Write what /proc and the control groups' folders say; eight cores."""

    def write(member, mount, root="/", **files):
        (tmp_path / "cgroup").write_text(member + "\n")
        line = mount.format(root=root, place=tmp_path / "fs")
        (tmp_path / "mounts").write_text(f"29 23 0:5 / /proc rw - proc proc rw\n{line}\n")
        for path, content in files.items():
            folder, _, name = path.rpartition("/")
            (tmp_path / "fs" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / path).write_text(content + "\n")

    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return write


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1)]
    + [("1600000 100000", 8), ("10000 50000", 1), ("", 8), ("max", 8), ("7 0", 8)],
)
def test_version_two_in_a_container(machine, limit, expected):
    machine("0::/", V2_MOUNT, **{"cpu.max": limit})
    assert cores.usable_cores() == expected


def test_the_least_limit_of_all_groups_above_counts(machine):
    files = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "max 100000"}
    machine("0::/a/b", V2_MOUNT, **files)
    assert cores.usable_cores() == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3), ("100000", 1)])
@pytest.mark.parametrize("root", ["/", "/docker/0123"])
def test_version_one(machine, quota, expected, root):
    """In a container the group's own folder is mounted; outside the mount has all groups."""
    folder = "" if root != "/" else "docker/0123/"
    files = {f"{folder}cpu.cfs_quota_us": quota, f"{folder}cpu.cfs_period_us": "100000"}
    member = "5:memory:/other\n4:cpu,cpuacct:/docker/0123\n0::/"
    machine(member, V1_MOUNT, root, **files)
    assert cores.usable_cores() == expected


def test_no_control_groups(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "nothing")
    assert cores.usable_cores() == 8


def test_this_machine_has_a_core():
    assert 1 <= cores.usable_cores() <= len(os.sched_getaffinity(0))
