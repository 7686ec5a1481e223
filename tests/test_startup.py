"""Scripts on machines that lack something: the right Python, MegEngine, a home that can be written.

No other Python is needed: this one says that it is another. Where pyenv has others they are asked,
too.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from official import private_folder as private
from official import startup

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("train.py", "test.py", "inference.py")
OTHERS = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))


def run(*words, **variables):
    environment = {**os.environ, **{k: str(v) for k, v in variables.items() if v is not None}}
    for name in (name for name, value in variables.items() if value is None):
        environment.pop(name, None)
    command = [*map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_megengine(name):
    """-S keeps Python from its packages."""
    done = run(sys.executable, "-S", ROOT / name, "--help")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{name}: error: MegEngine is not installed for {sys.executable}; run ")
    assert ".venv/bin/python" in line


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("version", [(3, 6), (3, 7), (3, 11), (3, 14)])
def test_of_another_python(name, version, tmp_path):
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); "
        f"sys.argv = [{str(ROOT / name)!r}, '--help']; "
        f"sys.version_info = {version!r} + (0, 'final', 0); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = run(sys.executable, "-S", "-c", code)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"{name}: error: Python {version[0]}.{version[1]} cannot run MegEngine")
    assert "3.8, 3.9 and 3.10" in line


@pytest.mark.parametrize("python", OTHERS, ids=lambda path: path.parts[-3])
def test_of_the_other_pythons_here(python):
    version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    if not version:
        pytest.skip("it does not run")
    done = run(python, ROOT / "train.py", "--help")
    if version in ("3.8", "3.9", "3.10") and done.returncode == 0:
        pytest.skip("it has MegEngine")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("train.py: error: ")
    expected = "not installed for" if version in ("3.8", "3.9", "3.10") else "cannot run MegEngine"
    assert expected in line


def test_a_package_that_is_missing_is_named(tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ModuleNotFoundError('No module', name='tqdm')")
    done = run(sys.executable, ROOT / "test.py", "--help", PYTHONPATH=tmp_path)
    (line,) = done.stderr.splitlines()
    assert line.startswith("test.py: error: the package tqdm is not installed for ")
    assert line.endswith("pip install -r requirements.txt") and done.returncode == 1


def test_a_missing_system_library_is_named(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    done = run(sys.executable, ROOT / "test.py", "--help", PYTHONPATH=tmp_path)
    (line,) = done.stderr.splitlines()
    assert "libGL.so.1" in line and "opencv-python-headless" in line and done.returncode == 1


@pytest.mark.parametrize(
    "error",
    [
        "ImportError('libmegengine_shared.so: failed to map segment from shared object')",
        "ImportError('libx.so: Cannot allocate memory')",
        "MemoryError",
    ],
)
def test_too_little_memory_for_the_imports_is_told(error, tmp_path):
    """What "ulimit -v 1000000" makes of them."""
    (tmp_path / "megengine.py").write_text(f"raise {error}")
    done = run(sys.executable, ROOT / "tools" / "check_data.py", PYTHONPATH=tmp_path)
    told = f"check_data.py: error: {startup.NO_MEMORY}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_an_error_of_our_own_is_not_hidden(tmp_path, monkeypatch):
    with pytest.raises(ImportError, match="cannot import name"):
        startup._why_not_imported(ImportError("cannot import name 'x'", name="official.x"))


@pytest.mark.parametrize(
    "home",
    ["/proc/1/home", "~nobody-of-that-name", "", "no/home"],
    ids=["read-only", "~", "", "rel"],
)
def test_without_a_home_that_can_be_written(home, tmp_path):
    """--help, of which a traceback came; the folder is private, and the second run says so too."""
    variables = {"HOME": home, "TMPDIR": tmp_path, "MGE_HOME": None, "XDG_CACHE_HOME": None}
    variables["MPLCONFIGDIR"] = None
    for _ in range(2):
        done = run(sys.executable, ROOT / "train.py", "--help", **variables)
        assert done.returncode == 0 and done.stdout.startswith("usage: train.py")
        (line,) = done.stderr.splitlines()
        (folder,) = tmp_path.iterdir()
        assert f"caches are kept in {folder}; MGE_HOME names another folder" in line
        assert folder.stat().st_mode & 0o777 == 0o700


def test_weights_are_still_read_from_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "home" / "serialized").mkdir(parents=True)
    monkeypatch.setattr(startup, "_why_not_writable", lambda home: f"{home}: read-only")
    monkeypatch.setattr(startup, "temporary_folder", lambda name: str(tmp_path / "tmp"))
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPLCONFIGDIR", "x")
    monkeypatch.delenv("MGE_FASTRUN_CACHE_DIR", raising=False)
    startup._find_home()
    assert os.environ["MGE_HOME"] == str(tmp_path / "home")
    assert os.environ["MGE_FASTRUN_CACHE_DIR"] == str(tmp_path / "tmp" / "persistent_cache")
    monkeypatch.delenv("MGE_FASTRUN_CACHE_DIR")


@pytest.mark.parametrize("value", ["", "cache"])
def test_no_cache_in_the_working_folder(value, tmp_path):
    """XDG's specification: a relative path is to be ignored, and an empty one is none."""
    work = tmp_path / "work"
    work.mkdir()
    code = "from official import startup; startup.prepare(); import os; print(os.listdir('.'))"
    variables = {"XDG_CACHE_HOME": value, "HOME": tmp_path, "MGE_HOME": None, "PYTHONPATH": ROOT}
    environment = {**os.environ, **{k: str(v) for k, v in variables.items() if v is not None}}
    environment.pop("MGE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=work, env=environment
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert (tmp_path / ".cache" / "megengine").is_dir()


def test_no_settings_from_the_working_folder(tmp_path, monkeypatch):
    """matplotlib reads matplotlibrc there; a pipe of that name would be waited for."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "from official.startup import prepare; prepare(); "
        "import os, matplotlib; print(matplotlib.rcParams['figure.dpi'], os.getcwd())"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 7\nbackend: module://planted\n")
    done = run(sys.executable, "-c", code)
    assert (done.stdout.split(), done.stderr) == (["100.0", str(tmp_path)], "")
    (tmp_path / "matplotlibrc").unlink()
    os.mkfifo(tmp_path / "matplotlibrc")
    assert run(sys.executable, "-c", code).stdout.split() == ["100.0", str(tmp_path)]


def test_an_import_that_ends_the_process_is_not_silent(tmp_path):
    (tmp_path / "fatal.py").write_text("import os\nos.abort()\n")
    code = "from official.startup import _import_quietly as quietly; quietly('fatal')"
    done = run(sys.executable, "-c", code, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode < 0 and "Aborted" in done.stderr and "fatal.py" in done.stderr


@pytest.mark.parametrize("script", ["train.py", "tools/check_data.py"])
def test_an_interrupted_import_has_no_traceback(script, tmp_path):
    """Ctrl-C in the first seconds; C code in an import can also make an ImportError of it."""
    (tmp_path / "megengine.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        "except KeyboardInterrupt:\n    raise ImportError('numpy.core.multiarray')\n"
    )
    done = run(sys.executable, ROOT / script, PYTHONPATH=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_after_the_imports_is_told(tmp_path):
    code = (
        "import signal, sys; from official import startup; sys.argv[1:] = ['--version']\n"
        "try:\n    startup.run('inference')\n"
        "finally:\n    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = run(sys.executable, "-c", code, PYTHONPATH=ROOT)
    assert done.stdout.endswith("True\n")


def test_variables_that_would_end_an_import(tmp_path):
    """OpenCV aborts, MegEngine raises an error; and a limit of OpenCV's is not ours."""
    variables = {
        "OPENCV_IO_MAX_IMAGE_PIXELS": "1 GB",
        "OPENCV_IO_MAX_IMAGE_WIDTH": "1",
        "MEGENGINE_LOGGING_LEVEL": "quiet",
    }
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from official.startup import prepare; "
        "prepare(); import cv2, numpy; "
        "print(cv2.imdecode(cv2.imencode('.png', numpy.zeros((9, 9, 3), numpy.uint8))[1], 1).shape)"
    )
    done = run(sys.executable, "-c", code, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(9, 9, 3)\n", "")


@pytest.mark.parametrize(("name", "value"), [("TQDM_MININTERVAL", "abc"), ("TQDM_NCOLS", "wide")])
def test_variables_that_are_no_numbers(name, value):
    done = run(sys.executable, ROOT / "test.py", "--help", **{name: value})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"test.py: error: {name}={value!r}: ")
    assert done.stderr.endswith(f"; unset {name}, or give it a value that is right\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed, tmp_path):
    """As some launchers leave them; nothing may take their numbers."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from official.startup import prepare; "
        "prepare(); file = open(sys.argv[1], 'w'); sys.stdin.read(); "
        "print('out', flush=True); print('err', file=sys.stderr); file.write(str(file.fileno()))"
    )
    shell = f'exec "$0" "$@" {closed} 3>&- 4>&-'
    done = run("sh", "-c", shell, sys.executable, "-c", code, tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "file").read_text()) > 2


def test_without_docstrings():
    done = run(sys.executable, "-OO", ROOT / "train.py", "--help")
    assert done.returncode == 0 and "--data" in done.stdout and done.stderr == ""


def test_what_an_import_prints_is_shown_only_if_it_fails(tmp_path):
    for name, end in (("loud", ""), ("failing", "raise ValueError('broken')")):
        text = f"import os\nos.write(2, b'noise of {name}\\n')\n{end}\n"
        (tmp_path / f"{name}.py").write_text(text)
    code = "from official.startup import _import_quietly as quietly; quietly('{}')"
    quiet, broken = (
        run(sys.executable, "-c", code.format(name), PYTHONPATH=f"{tmp_path}:{ROOT}")
        for name in ("loud", "failing")
    )
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert broken.returncode == 1 and "noise of failing" in broken.stderr
    assert broken.stderr.rstrip().endswith("ValueError: broken")


class TestPrivateFolder:
    def test_its_own_and_closed(self, tmp_path):
        wanted = str(tmp_path / "a" / "b")
        assert private.private_folder(wanted, "x") == (wanted, "")
        assert Path(wanted).stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
    def test_open_to_others(self, tmp_path, monkeypatch, mode):
        monkeypatch.setattr(private.tempfile, "tempdir", str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        (tmp_path / "wanted").mkdir()
        (tmp_path / "wanted").chmod(mode)
        folder, reason = private.private_folder(str(tmp_path / "wanted"), "x")
        assert folder == str(tmp_path / "tmp" / f"x-{os.geteuid()}") and "chmod go-w" in reason

    def test_a_place_that_somebody_has_taken_among_the_temporary_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr(private.tempfile, "tempdir", str(tmp_path))
        taken = tmp_path / f"x-{os.geteuid()}"
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        for make in (
            lambda: taken.symlink_to(elsewhere),
            lambda: taken.mkdir() or taken.chmod(0o777),
            lambda: taken.write_text(""),
        ):
            make()
            folder = private.temporary_folder("x")
            assert folder != str(taken) and Path(folder).stat().st_mode & 0o777 == 0o700
            taken.rmdir() if taken.is_dir() and not taken.is_symlink() else taken.unlink()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_another_users(self, tmp_path):
        path = tmp_path / "file"
        path.touch(0o600)
        assert private.why_not_private(str(path)) == ""
        os.chown(path, 65534, -1)
        assert "another user" in private.why_not_private(str(path))
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "file").touch(0o600)
        os.chown(folder, 65534, -1)
        assert "others" in private.why_not_private(str(folder / "file"))
