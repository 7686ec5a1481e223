"""What comes before a script: the right Python, its packages, a home for caches, quiet imports.

The scripts at the root, the commands that pip installs, the tools and the ranks' processes begin
here. Nothing at this file's top needs a package, or a Python newer than 3.6: that is what it says
something about.
"""

import difflib
import faulthandler
import importlib
import importlib.util
import logging
import os
import signal
import sys
import tempfile
import warnings
from typing import Dict, List, Tuple

from .private_folder import temporary_folder

_PYTHONS = ((3, 8), (3, 9), (3, 10))
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CACHE = "megengine-cache"  # the name of the folder in place of one that cannot be written

# What follows "resnet" on a command line: the module below official.vision.classification that does
# it, and what it does. train.py and the like, and tools/, call the same modules.
COMMANDS: Dict[str, Tuple[str, str]] = {
    "train": ("train", "train a network on a folder of images"),
    "test": ("test", "count the right answers on a data set, with a report"),
    "predict": ("inference", "name what is in pictures"),
    "serve": ("commands.serve", "a page on this machine that names what is in dropped pictures"),
    "list": ("commands.list_weights", "the networks and published weights to choose from"),
    "check-data": ("commands.check_data", "read every image of a data set, compare the splits"),
    "prepare-data": ("commands.prepare_data", "pack a data set into shards"),
    "compare": ("commands.compare_runs", "accuracy, time and recipes of several runs"),
    "convert": ("commands.convert_weights", "convert a weight file of another project"),
    "export": ("commands.export", "write a network as ONNX or .mge"),
    "benchmark": ("tools.benchmark", "measure the speed of networks, training and the loader"),
}
NO_MEMORY = "there is not enough memory; give the process more (ulimit -v, a job's limit)"
_USAGE = "usage: resnet COMMAND [flags] ...\n\nResNets for image classification on MegEngine.\n"


def resnet() -> int:
    """The command resnet: run the command that is named by its first word."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help", "help"):
        lines = [f"  {name:14}{what}\n" for name, (_, what) in COMMANDS.items()]
        end = '\n"resnet COMMAND --help" tells its flags.\n'
        sys.stdout.write("".join([_USAGE, "\ncommands:\n", *lines, end]))
        return 0
    if command == "--version":
        prepare()
        package = importlib.import_module("official.vision.classification")
        sys.stdout.write(f"resnet {package.__version__}\n")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "there are " + ", ".join(COMMANDS)
        sys.stderr.write(f"resnet: error: there is no command {command!r}: {hint}\n")
        return 2
    sys.argv[:2] = [f"resnet {command}"]  # the parsers tell their examples by this name
    module, _ = COMMANDS[command]
    return _run_tool(module) if module.startswith("tools.") else run(module)


def _run_tool(module: str) -> int:
    if not os.path.exists(os.path.join(_ROOT, *module.split(".")) + ".py"):
        _refuse("is not installed; it needs a checkout of the repository, with the folder tools/")
    prepare()
    sys.path.insert(0, _ROOT)
    return importlib.import_module(module).main()


def train() -> int:
    """The command resnet-train."""
    return run("train")


def test() -> int:
    """The command resnet-test."""
    return run("test")


def inference() -> int:
    """The command resnet-inference."""
    return run("inference")


def run(name: str) -> int:
    """Run ``main`` of ``official.vision.classification.<name>``; return its exit code."""
    can_interrupt = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if can_interrupt:  # it would end an import by a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    prepare()
    module = "official.vision.classification." + name
    _import_quietly(module)  # on 3.8 MegEngine's wheel has more to print
    if can_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return sys.modules[module].main()


def prepare() -> None:
    """Make this process fit for the project, or end it with a line that says the way out."""
    _open_streams()
    problem = _wrong_python()
    if problem:
        _refuse(problem)
    _find_home()
    _mend_environment()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with an image, we say
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _keep_to_our_settings()
    _import_quietly("megengine")


def _open_streams() -> None:
    """Open those of the three streams that a launcher has closed.

    Else the first files that are opened take their numbers, and what libraries print goes there.
    """
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _mend_environment() -> None:
    """Words that would end the import of a package, by a traceback or by an abort."""
    level = os.environ.get("MEGENGINE_LOGGING_LEVEL", "").upper()
    if not isinstance(logging.getLevelName(level), int):
        os.environ["MEGENGINE_LOGGING_LEVEL"] = "ERROR"
    for name in [name for name in os.environ if name.startswith("OPENCV_IO_MAX_IMAGE_")]:
        del os.environ[name]  # aborts unless it is a number; the gate before it has the limit


def _wrong_python() -> str:
    version = sys.version_info[:2]
    if version not in _PYTHONS:
        return "Python {}.{} cannot run MegEngine, which exists for 3.8, 3.9 and 3.10; {}".format(
            *version, _way_out()
        )
    if importlib.util.find_spec("megengine") is None:
        return f"MegEngine is not installed for {sys.executable}; {_way_out()}"
    return ""


def _way_out() -> str:
    python = os.path.join(_ROOT, ".venv", "bin", "python")
    script = os.path.relpath(sys.argv[0]) if sys.argv[0] else "train.py"
    if os.path.exists(python):
        return f"run {os.path.relpath(python)} {script}"
    if os.path.exists(os.path.join(_ROOT, "Makefile")):
        return f"run make setup once, then .venv/bin/python {script}"
    return "use a Python that has them (pip install megengine)"


def _why_not_imported(error: Exception) -> str:
    text = str(error).lower()
    no_room = "failed to map segment" in text or "cannot allocate memory" in text
    if no_room or isinstance(error, MemoryError):
        return NO_MEMORY
    if "libGL" in str(error) or "libgthread" in str(error):
        return f"{error}; pip uninstall opencv-python, then pip install opencv-python-headless"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] != "official":
        return (
            f"the package {error.name} is not installed for {sys.executable}; "
            "pip install -r requirements.txt"
        )
    for name, value in os.environ.items():  # which libraries read as numbers when they are imported
        if isinstance(error, ValueError) and value and repr(value) in str(error):
            return f"{name}={value!r}: {error}; unset {name}, or give it a value that is right"
    raise error


def _refuse(message: str) -> None:
    sys.stderr.write(f"{os.path.basename(sys.argv[0])}: error: {message}\n")
    sys.exit(1)


def _find_home() -> None:
    """Let MegEngine and matplotlib keep their caches where that is possible.

    MegEngine makes a folder when it is imported, and fails where it cannot; and it takes an empty
    or relative variable for a folder below the working one, against the XDG specification.
    """
    for variable in ("MGE_HOME", "XDG_CACHE_HOME"):
        if not os.path.isabs(os.path.expanduser(os.environ.get(variable) or "/")):
            own = variable == "MGE_HOME"
            os.environ[variable] = os.path.abspath(os.environ[variable]) if own else ""
        if not os.environ.get(variable):
            os.environ.pop(variable, None)
    base = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.path.expanduser(os.environ.get("MGE_HOME", os.path.join(base, "megengine")))
    problem = _why_not_writable(home)
    if not problem:
        return
    folder = temporary_folder(_CACHE)
    if os.path.isdir(os.path.join(home, "serialized")):  # weights to read from; the rest goes away
        os.environ.setdefault("MGE_FASTRUN_CACHE_DIR", os.path.join(folder, "persistent_cache"))
    else:
        os.environ["MGE_HOME"] = folder
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))
    sys.stderr.write(
        f"{os.path.basename(sys.argv[0])}: {problem}: caches are kept in {folder}; "
        "MGE_HOME names another folder\n"
    )


def _keep_to_our_settings() -> None:
    """Import matplotlib elsewhere where the working folder has settings for it.

    It reads ``matplotlibrc`` there before any other, whoever has put it there.
    """
    if not os.path.lexists("matplotlibrc") or importlib.util.find_spec("matplotlib") is None:
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(os.path.dirname(os.path.abspath(__file__)))
        importlib.import_module("matplotlib")
    finally:
        os.fchdir(here)
        os.close(here)


def _why_not_writable(home: str) -> str:
    if not os.path.isabs(home) or not os.path.isabs(os.environ.get("HOME", "/")):
        return "there is no home folder (HOME)"
    try:
        os.makedirs(home, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return ""
    except OSError as error:
        return f"{home}: {error.strerror}"


def _import_quietly(name: str) -> None:
    """Import it without the lines that its libraries print; they are shown if it fails.

    Where the process ends in it, as by an instruction that the CPU does not know, Python says so.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    tells = not faulthandler.is_enabled()
    if tells:
        faulthandler.enable(kept, all_threads=False)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
            said.truncate(0)
        except (ImportError, MemoryError, ValueError) as error:
            problem = _why_not_imported(error)
            said.truncate(0)
            os.dup2(kept, 2)
            _refuse(problem)
        finally:
            os.dup2(kept, 2)
            if tells:
                faulthandler.disable()
            os.close(kept)
            said.seek(0)
            _show(said.read().splitlines())


def _show(lines: List[bytes]) -> None:
    for line in lines:
        sys.stderr.write(line.decode(errors="replace") + "\n")
