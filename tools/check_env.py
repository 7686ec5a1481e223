#!/usr/bin/env python3
"""Tell what this machine and this Python have for the project, and what is wrong with them.

in the project's environment   make check-env
in one of your own             python tools/check_env.py

Exit code 1: something would stop the scripts, and a line says the way out. Warnings leave it 0.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

try:
    from importlib import metadata
except ImportError:  # Python 3.7 and older, which is what will be told
    metadata = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import machine  # noqa: E402

PYTHONS = ((3, 8), (3, 9), (3, 10))
PROBE_SECONDS = 900  # the first one compiles the CPU kernels, in about fifteen
TOLERANCE = 1e-3  # between kernels, relative to the largest logit; bf16 is not probed
LITTLE_MEMORY, LITTLE_DISK = 2.0, 2.0  # GB: less than a small training run, or a few weights, take


class Findings:
    """What there is, what stops the scripts, and what only hampers them."""

    def __init__(self) -> None:
        self.facts: Dict[str, str] = {}
        self.problems: List[str] = []
        self.warnings: List[str] = []

    def lines(self) -> List[str]:
        """The report."""
        width = max(map(len, self.facts)) + 2
        lines = []
        for name, value in self.facts.items():
            lines += textwrap.wrap(
                value, 100, initial_indent=name.ljust(width), subsequent_indent=" " * width
            )
        lines += [f"problem: {text}" for text in self.problems]
        lines += [f"warning: {text}" for text in self.warnings]
        count = len(self.problems)
        verdict = f"{count} problem{'s'[: count > 1]} to mend" if count else "ready"
        return [*lines, f"check-env: {verdict}"]


class Requirement(NamedTuple):
    """A line of requirements.txt."""

    name: str
    version: str
    is_optional: bool


def requirements(text: str) -> List[Requirement]:
    """The pins of a requirements file that are for this Python.

    A comment with the word optional says what that is.
    """
    found = []
    for line in text.splitlines():
        pin, _, comment = line.partition("#")
        match = re.match(r"([\w.-]+)==([\w.]+)", pin)
        if match and is_for(sys.version_info[:2], pin):
            found.append(Requirement(match[1], match[2], "optional" in comment))
    return found


def is_for(version: Sequence[int], pin: str) -> bool:
    """Whether a pin's marker, ``; python_version < "3.9"`` or the like, fits that Python."""
    found = re.search(r'; *python_version *(<|==|>=) *"(\d+)\.(\d+)"', pin)
    if not found:
        return True
    other = (int(found[2]), int(found[3]))
    return {"<": tuple(version) < other, "==": tuple(version) == other}.get(
        found[1], tuple(version) >= other
    )


def check_python(findings: Findings) -> None:
    """The interpreter and the system."""
    findings.facts["Python"] = f"{platform.python_version()}, {sys.executable}"
    findings.facts["system"] = f"{platform.platform()}, {platform.machine()}"
    if sys.version_info[:2] not in PYTHONS:
        findings.problems.append(
            f"Python {platform.python_version()}: MegEngine 1.13 has wheels for 3.8, 3.9 and 3.10 "
            "only; make setup PYTHON=/path/to/python3.10"
        )
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        findings.problems.append(
            f"{platform.system()} on {platform.machine()}: MegEngine 1.13 has wheels for Linux on "
            "x86-64 only; use a container or another machine"
        )


def check_machine(findings: Findings) -> None:
    """Processor and memory, where Linux tells of them."""
    if platform.system() != "Linux":
        return
    here, available = machine.describe(), machine.available_gb()
    flags = ", ".join(here["flags"]) or "neither AVX2 nor AVX-512"
    findings.facts["CPU"] = f"{here['cpu']}, {here['cores']} core(s) to use, {flags}"
    findings.facts["memory"] = f"{available:.1f} of {here['memory_gb']:.1f} GB available"
    if available < LITTLE_MEMORY:
        findings.warnings.append(
            f"{available:.1f} GB of memory available; small batches only (--batch-size)"
        )


def check_packages(findings: Findings, wanted: Sequence[Requirement]) -> List[str]:
    """Which of the pinned packages are installed, and in which versions; the needed ones that are
    not."""
    present = {each.name: installed(each.name) for each in wanted}
    if present.get("opencv-python", "") is None:
        present["opencv-python"] = installed("opencv-python-headless")
    findings.facts["packages"] = ", ".join(
        f"{name} {version}" for name, version in present.items() if version
    )
    missing = [each for each in wanted if present[each.name] is None]
    needed = [each.name for each in missing if not each.is_optional]
    if needed:
        findings.problems.append(
            f"not installed: {', '.join(needed)}; pip install -r requirements.txt"
        )
    if len(missing) > len(needed):
        names = ", ".join(each.name for each in missing if each.is_optional)
        findings.warnings.append(
            f"not installed: {names}; CPUs will be slow without; pip install -r requirements.txt"
        )
    others = []
    for each in wanted:
        version = present[each.name]
        if each.name == "numpy" and version and int(version.split(".")[0]) >= 2:
            findings.problems.append(
                f"numpy {version}: MegEngine 1.13 needs numpy < 2; pip install "
                f"numpy=={each.version}"
            )
        elif version not in (None, each.version):
            others.append(f"{each.name} {version}, not {each.version}")
    if others:
        findings.warnings.append(
            f"not the tested version: {'; '.join(others)}; pip install -r requirements.txt"
        )
    return needed


def installed(name: str) -> Optional[str]:
    """A package's version; None without it."""
    if metadata is None:
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_imports(findings: Findings, opencv: str) -> bool:
    """Whether the packages that bring system libraries along, and need others, can be loaded."""
    ok = True
    for name in ("cv2", "megengine"):
        done = run_apart(["-c", f"import {name}"])
        if done.returncode:
            ok = False
            reason = last_line(done)
            if "libGL" in reason or "libgthread" in reason:
                reason += (
                    "; pip uninstall opencv-python, then pip install "
                    f"opencv-python-headless=={opencv}"
                )
            else:
                reason += "; make setup makes an environment in which it loads"
            findings.problems.append(f"import {name}: {reason}")
    return ok


def check_project(findings: Findings) -> None:
    """The devices, the kernels and the cache, as the project itself sees them."""
    done = run_apart([__file__, "--probe", "project"])
    if done.returncode:
        findings.problems.append(f"the project does not run: {last_line(done)}")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    findings.facts["GPUs"] = "; ".join(found["gpus"]) or "none that MegEngine can use"
    findings.facts["CPU kernels"] = found["kernels"]
    findings.facts["JPEG decoding"] = found["jpeg"]
    for remark in found["remarks"]:
        findings.warnings.append(remark + way_out(remark))
    if found["difference"] > TOLERANCE:
        findings.problems.append(
            f"{found['kernels']}: a network's logits differ by {found['difference']:.1e} of the "
            "largest from those of MegEngine's kernels; set RESNET_KERNELS=megengine and report it"
        )
    check_cache(findings, Path(found["cache"]))
    if found["gpus"]:
        check_gpu(findings)
    elif shutil.which("nvidia-smi"):
        findings.warnings.append("there is a driver (nvidia-smi), but no GPU MegEngine can use")


def way_out(remark: str) -> str:
    """What mends a missing kernel."""
    if "compiler" in remark:
        return "; apt-get install g++, or set CXX to a C++17 compiler"
    if "not installed" in remark:
        return "; pip install -r requirements.txt"
    return ""


def check_cache(findings: Findings, cache: Path) -> None:
    """Where weights and kernels are kept."""
    place = cache
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    findings.facts["cache"] = f"{cache}, {free:.1f} GB free"
    if not os.access(place, os.W_OK):
        findings.problems.append(
            f"{cache}: cannot be written; set MGE_HOME to a folder for weights and kernels"
        )
    elif free < LITTLE_DISK:
        findings.warnings.append(
            f"{cache}: {free:.1f} GB free; MGE_HOME names another folder for weights and kernels"
        )


def check_gpu(findings: Findings) -> None:
    """Whether the first GPU computes: a driver, or a GPU newer than the wheel, may not let it."""
    done = run_apart([__file__, "--probe", "gpu"])
    if done.returncode:
        findings.problems.append(
            f"gpu0 does not compute: {last_line(done)}; --device cpu works anywhere"
        )


def run_apart(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run this Python on ``words``, apart: what is broken may take its process with it."""
    command = [sys.executable, *words]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            command, 1, "", f"no answer within {PROBE_SECONDS} seconds"
        )


def last_line(done: "subprocess.CompletedProcess[str]") -> str:
    """Why it failed."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}"
    return lines[-1] if lines else f"exit code {done.returncode}"


def probe_project() -> Dict[str, Any]:
    """Run in a process of its own: kernels, their remarks and their results, GPUs, cache."""
    import logging

    import megengine
    import numpy as np
    from megengine.hub.hub import _get_megengine_home

    from official.vision.classification.data.jpeg import part_decoder
    from official.vision.classification.engine.device import count_gpus, prepare, use_device
    from official.vision.classification.ops.accelerate import detach
    from official.vision.classification.resnet.cifar import resnet20_cifar

    remarks: List[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: remarks.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("official").addHandler(handler)
    gpus = [megengine.get_cuda_device_property(index).name for index in range(count_gpus())]
    use_device("cpu")
    model = prepare(resnet20_cifar(), "cpu")
    model.eval()
    kernels = model.ops.name
    parts = part_decoder()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    ours = model(megengine.Tensor(images)).numpy()
    stock = detach(model)(megengine.Tensor(images)).numpy()
    return {
        "gpus": gpus,
        "kernels": kernels,
        "jpeg": f"parts by {parts.library}" if parts else "whole images",
        "remarks": remarks,
        "difference": float(np.abs(ours - stock).max() / np.abs(stock).max()),
        "cache": _get_megengine_home(),
    }


def probe_gpu(device: str = "gpu0") -> Dict[str, Any]:
    """Run in a process of its own: a convolution on the first GPU."""
    import megengine.functional as F

    images = F.ones((2, 16, 8, 8), device=device)
    weight = F.ones((16, 16, 3, 3), device=device)
    total = float(F.conv2d(images, weight, padding=0).numpy().sum())
    if total != 2 * 16 * 6 * 6 * 16 * 9:
        raise ValueError(f"a convolution of ones sums to {total}")
    return {}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="check_env.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--probe", choices=("project", "gpu"), help=argparse.SUPPRESS)
    probe = parser.parse_args(argv).probe
    if probe:
        sys.stdout.write(json.dumps(probe_gpu() if probe == "gpu" else probe_project()) + "\n")
        return 0
    findings = Findings()
    wanted = requirements((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    check_python(findings)
    check_machine(findings)
    missing = check_packages(findings, wanted)
    opencv = next(each.version for each in wanted if each.name == "opencv-python")
    if not missing and check_imports(findings, opencv):
        check_project(findings)
    sys.stdout.write("\n".join(findings.lines()) + "\n")
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
