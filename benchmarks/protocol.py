"""A worker, as compare.py sees it: a process that runs one step when it is asked to."""

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence

from official.vision.classification.errors import UserError

_TICKS = os.sysconf("SC_CLK_TCK")  # per second, in which Linux counts CPU time


class Worker:
    """A running worker of worker.py's protocol; also a context, at whose end it is gone.

    Args:
        name: of the configuration, for messages.
        environment: variables that it has beside this process's own.

    Raises:
        UserError: from every method, when the process has ended or says something unexpected.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Dict[str, str]):
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 closed by close()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **environment},
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise UserError(f"{name}: {command[0]}: {error.strerror}") from None
        assert self._process.stdin is not None and self._process.stdout is not None  # pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def wait_until_ready(self) -> None:
        line = self._read()
        if line != "ready":
            raise self._unexpected("ready", line)

    def step(self) -> float:
        """The seconds of one step."""
        self._write("step")
        line = self._read()
        try:
            return float(line)
        except ValueError:
            raise UserError(
                f"{self.name}: expected seconds from the worker, got {line!r}"
            ) from None

    def end(self) -> Dict[str, Any]:
        """Let it exit; what it knows of itself."""
        self._write("end")
        line = self._read()
        try:
            return json.loads(line)
        except ValueError:
            raise self._unexpected("JSON", line) from None

    def cpu_seconds(self) -> float:
        """What all of its threads have used so far."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            raise self._death() from None
        after_name = text.rpartition(")")[2].split()  # from the third field on; see proc(5)
        return (int(after_name[11]) + int(after_name[12])) / _TICKS

    def close(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # nobody reads what may still lie in the buffer
            self._stdin.close()
        self._stdout.close()
        self._errors.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        try:
            self._stdin.write(line + "\n")
            self._stdin.flush()
        except OSError:
            raise self._death() from None

    def _read(self) -> str:
        line = self._stdout.readline()
        if not line:
            raise self._death()
        return line.strip()

    def _unexpected(self, wanted: str, line: str) -> UserError:
        return UserError(f"{self.name}: expected {wanted} from the worker, got {line!r}")

    def _death(self) -> UserError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        silent = "killed, as Linux does when memory runs out" if code == -9 else "without a message"
        last = said[-1] if said else silent
        return UserError(f"{self.name}: the worker ended with exit code {code}: {last}")


def machine_cpu_seconds() -> float:
    """CPU time that all processes on this machine have used so far, or were denied by its host."""
    fields: List[int] = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / _TICKS
