"""What the cores can do at most."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict

from official.vision.classification.errors import UserError

_SOURCE = Path(__file__).with_name("fma_peak.cpp")


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
        """GFLOP/s in ``fp32`` and ``bf16``, None where the CPU lacks it.

        Beside them ``instructions``, a name or None for each of the two, and ``threads``.
        """
        done = subprocess.run(
            [str(self._program), str(threads), str(seconds)],
            capture_output=True,
            text=True,
            check=True,
        )
        return {"threads": threads, **json.loads(done.stdout)}
