"""Compile the native kernels for this machine, once, and load them.

The library lies in MegEngine's cache folder (``MGE_HOME``), under a name that holds a digest of all
that went into it: the sources, the flags, the compiler, MegEngine, oneDNN and the processor. What
is loaded is run, and its name can be guessed: folder and file must be the user's own, or root's,
and closed to others.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import megengine
from megengine import Tensor
from megengine.core._imperative_rt.core2 import apply
from megengine.core.ops import custom
from megengine.hub.hub import _get_megengine_home

from official.private_folder import private_folder, why_not_private

_SOURCES = Path(__file__).parent / "native"
_ONEDNN = "onednn-cpu-gomp"
_TIMEOUT = 600  # seconds; it takes about ten
_MEGENGINE = Path(megengine.__file__).parent / "core"

logger = logging.getLogger(__name__)

Number = Union[int, float]


class KernelsUnavailable(Exception):
    """Why there are no native kernels here, in one line."""


# What this process has opened, by the end of its name. MegEngine aborts the process when a second
# file registers operators of the same names: another copy, or one that took the first one's place.
_opened: Dict[str, ctypes.CDLL] = {}


def _open(library: Path) -> ctypes.CDLL:
    problem = why_not_private(str(library))
    if problem:
        raise KernelsUnavailable(f"{problem}; delete {library}")
    try:
        custom.load(str(library))  # before ctypes opens it, or the process crashes at its end
        opened = ctypes.CDLL(str(library))
        opened.resnet_set_threads  # noqa: B018
    except AttributeError:
        raise KernelsUnavailable(f"{library}: has no kernels of ours; delete it") from None
    except (OSError, RuntimeError) as error:
        raise KernelsUnavailable(f"{library}: {_first_line(str(error))}") from None
    return opened


class Kernels:
    """The operators of a library, by name.

    ``kernels("Add", x, y, relu=0)`` returns the list of the operator's outputs. The kernels use
    ``threads`` threads, in this process, from now on.
    """

    def __init__(self, library: Path, threads: int):
        self.threads = threads
        self._operators: Dict[tuple, object] = {}
        self._suffix = library.stem.rsplit("_", 1)[1]
        if self._suffix not in _opened:
            _opened[self._suffix] = _open(library)
        self._native = _opened[self._suffix]
        self._native.resnet_set_threads(threads)

    def convolves(self, element: int) -> bool:
        """Whether plans can have maps of this type (steps.py)."""
        return bool(self._native.resnet_convolves(ctypes.c_int(element)))

    def run_steps(self, steps: ctypes.Array, first: int = 0, count: Optional[int] = None) -> None:
        """Do the steps of a plan (plan.py); other threads of Python go on meanwhile."""
        begin = ctypes.byref(steps, first * ctypes.sizeof(steps) // len(steps))
        self._native.resnet_run(begin, ctypes.c_size_t(len(steps) if count is None else count))

    def __call__(self, name: str, *inputs: Tensor, **params: Number) -> List[Tensor]:
        key = (name, *params.items())
        if key not in self._operators:
            self._operators[key] = getattr(custom, f"{name}_{self._suffix}")(**params)
        return apply(self._operators[key], *inputs)


def load_kernels(threads: int) -> Kernels:
    """The kernels, compiled first where the cache does not have them.

    Raises:
        KernelsUnavailable: without a C++ compiler or oneDNN, or when compiling fails.
    """
    return Kernels(_library(), threads)


def _library() -> Path:
    told = "the CPU kernels for this machine, once; it takes up to a minute"
    return compiled("resnet", told, _SOURCES, _flags(), ("megengine", _ONEDNN))


def compiled(
    name: str, told: str, folder: Path, flags: Sequence[str], packages: Sequence[str] = ()
) -> Path:
    """The shared library of all C++ files in ``folder``, compiled first where there is none yet.

    Args:
        name: what its own name starts with.
        told: what is compiled, for a line before that is done.
        packages: whose versions it depends on.

    Raises:
        KernelsUnavailable: without a C++ compiler, or when compiling fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise KernelsUnavailable("no C++ compiler (g++) was found")
    sources = sorted(folder.rglob("*.cpp"))
    command = [compiler, *map(str, sources), *flags]
    suffix = _digest(command, [*sources, *folder.rglob("*.h")], packages)
    wanted = str(Path(_get_megengine_home()) / "resnet_ops")
    try:
        place, problem = private_folder(wanted, "resnet_ops")
    except OSError as error:
        raise KernelsUnavailable(f"{wanted}: {error.strerror}") from None
    if problem:
        logger.warning("%s; the CPU kernels are kept in %s", problem, place)
    library = Path(place) / f"{name}_{suffix}.so"
    if not library.exists():
        logger.warning("compiling %s", told)
        _compile([*command, f"-DRESNET_BUILD={suffix}"], library)
    return library


def _flags() -> List[str]:
    headers = _file_of(f"onednn-devel-{_ONEDNN[7:]}", "oneapi/dnnl/dnnl.hpp").parents[2]
    folder = _file_of(_ONEDNN, "libdnnl.so.3").parent
    return [
        *(
            "-O3",
            "-march=native",
            "-std=c++17",
            "-ffp-contract=fast",
            "-fno-math-errno",  # or roots are taken one by one
            "-fopenmp-simd",
            "-fPIC",
            "-shared",
        ),
        *_own_flags(),
        f"-D_GLIBCXX_USE_CXX11_ABI={custom.get_custom_op_abi_tag()}",
        *("-isystem", str(_MEGENGINE / "include"), "-isystem", str(headers)),
        *(f"-L{folder}", "-l:libdnnl.so.3", f"-Wl,-rpath,{folder}"),
        *(f"-L{_MEGENGINE / 'lib'}", "-lmegengine_shared", f"-Wl,-rpath,{_MEGENGINE / 'lib'}"),
    ]


def _own_flags() -> List[str]:
    try:
        return shlex.split(os.environ.get("CXXFLAGS", ""))
    except ValueError as error:
        raise KernelsUnavailable(f"CXXFLAGS: {error}") from None


def _file_of(package: str, ending: str) -> Path:
    """Where pip has put a package's file."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        raise KernelsUnavailable(f"the package {package} is not installed") from None
    for file in files:
        if str(file).endswith(ending):
            return Path(file.locate()).resolve()
    raise KernelsUnavailable(f"the package {package} has no {ending}")


def _digest(command: List[str], files: List[Path], packages: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for package in packages:
        digest.update(metadata.version(package).encode())
    digest.update(_output([command[0], "--version"]).encode())
    digest.update(" ".join(processor_flags()).encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def processor_flags() -> List[str]:
    """The sets of instructions that this CPU has, by Linux's names."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return line.split()[2:]
    return []


def _compile(command: List[str], library: Path) -> None:
    """Write ``library`` whole or not at all; another process may do the same at the same time."""
    try:
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            _output([*command, "-o", str(made)])
            made.chmod(0o700)  # whatever the umask is
            made.replace(library)
    except OSError as error:
        raise KernelsUnavailable(f"{library.parent}: {error.strerror}") from None


def _output(command: List[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailable(f"{command[0]}: {_first_line(str(error))}") from None
    if done.returncode != 0:
        raise KernelsUnavailable(f"{command[0]}: {_first_error(done.stderr)}")
    return done.stdout


def _first_error(text: str) -> str:
    errors = [line for line in text.splitlines() if "error:" in line]
    return (errors or text.splitlines() or ["it failed"])[0].strip()


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["it failed"])[0]
