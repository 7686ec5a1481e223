"""What the benchmarks run on. Python's standard library is enough for it."""

import os
import platform
from pathlib import Path
from typing import Any, Dict

_TELLING = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")


def describe() -> Dict[str, Any]:
    """For JSON: a Linux machine, as far as it matters here."""
    present = set(_field("/proc/cpuinfo", "flags").split())
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _TELLING if flag in present],
        "memory_gb": _bytes("MemTotal") / 1e9,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def available_gb() -> float:
    """Memory that a new program may take without swapping, in GB (10^9 bytes)."""
    return _bytes("MemAvailable") / 1e9


def _bytes(name: str) -> int:
    return int(_field("/proc/meminfo", name).split()[0]) * 1024


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
