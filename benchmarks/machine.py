"""What the benchmarks ran on, and what it can do at most."""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict

from official.vision.classification.errors import UserError
from official.vision.classification.ops.build import processor_flags

_SOURCE = Path(__file__).with_name("fma_peak.cpp")
_TELLING = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")


def describe() -> Dict[str, Any]:
    """For JSON: the machine, as far as it matters here."""
    present = set(processor_flags())
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _TELLING if flag in present],
        "memory_gb": int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


class Peak:
    """Measures how many multiply-adds the cores can do; a context that holds the program."""

    def __enter__(self) -> "Peak":
        """Compile it.

        Raises:
            UserError: without a compiler, or on a CPU without FMA instructions.
        """
        compiler = os.environ.get("CXX") or shutil.which("g++")
        if compiler is None:
            raise UserError("no C++ compiler (g++) was found; the benchmarks need one")
        self._folder = tempfile.TemporaryDirectory()
        self._program = Path(self._folder.name) / "fma_peak"
        command = [compiler, "-O2", "-march=native", "-std=c++17", "-pthread", str(_SOURCE)]
        done = subprocess.run([*command, "-o", str(self._program)], capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            self._folder.cleanup()
            raise UserError(f"{compiler}: {(errors or ['it failed'])[0]}")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def measure(self, threads: int, seconds: float) -> Dict[str, Any]:
        """GFLOP/s in ``fp32`` and ``bf16``, None where the CPU lacks it; and ``threads``."""
        done = subprocess.run(
            [str(self._program), str(threads), str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        )
        return {"threads": threads, **json.loads(done.stdout)}
