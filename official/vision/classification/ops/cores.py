"""How many cores this process may use."""

import math
import os
from pathlib import Path
from typing import List, Optional, Tuple

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_MOST_THREADS = 4096


def usable_cores() -> int:
    """Cores that the process may run on, or as many as its share of time would fill, rounded up.

    The former is what ``taskset`` sets, the latter ``docker run --cpus``: of a thread for each core
    of the machine most would wait until the share of the next tenth of a second.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_threads() -> int:
    """Threads of the kernels: ``OMP_NUM_THREADS``, or one for each core that may be used.

    The variable may be a list, whose first number is meant; what makes no sense does not count.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and 0 < int(wanted[:9]) <= _MOST_THREADS:
        return int(wanted[:9])
    return usable_cores()


def cpu_quota() -> Optional[float]:
    """The least share of time, in cores, of this process's control groups; None without a limit.

    Both versions of control groups: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and
    Documentation/scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    quotas = []
    for group, version in _groups():
        for folder in (group, *group.parents):
            quota = _quota_v2(folder) if version == 2 else _quota_v1(folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _groups() -> List[Tuple[Path, int]]:
    """The folders of the process's groups that may limit its time, and their version."""
    try:
        member = [line.split(":", 2) for line in _MEMBERSHIP.read_text().splitlines()]
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:  # not Linux, or nothing of it is to be seen
        return []
    found = []
    for words in mounts:
        if "-" not in words:
            continue
        kind, options = words[words.index("-") + 1], words[-1].split(",")
        root, place = words[3], Path(words[4])
        for _, controllers, path in member:
            version = 2 if kind == "cgroup2" and not controllers else 0
            if kind == "cgroup" and "cpu" in options and "cpu" in controllers.split(","):
                version = 1
            if version:
                # In a container the mount's root is the group itself, or a name for it.
                below = path[len(root) :] if path.startswith(root) else ""
                found.append((place / below.lstrip("/"), version))
    return found


def _quota_v2(folder: Path) -> Optional[float]:
    quota, _, period = _content(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> Optional[float]:
    period = _content(folder / "cpu.cfs_period_us")
    return _ratio(_content(folder / "cpu.cfs_quota_us"), period)


def _content(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _ratio(quota: str, period: str) -> Optional[float]:
    """None where there is no limit: "max", -1, or no such file."""
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)
