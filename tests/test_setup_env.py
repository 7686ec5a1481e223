"""tools/setup_env.sh: which Python it takes, and when it installs. No network: interpreters are
shell scripts that answer as a Python would, except in the last test."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "setup_env.sh"
# All that the script may use; no real Python is on this PATH.
COMMANDS = "bash cat chmod cksum cp dirname env grep ls mkdir rm sed touch".split()

# A Python {version} that keeps a log of pip's calls. `-m venv` copies it into the new environment.
# The files pip-fails and no-libgl in {state} make pip, or cv2 without the headless build, fail.
FAKE_PYTHON = """#!/bin/sh
cd '{state}'
case "$*" in
    -V) echo 'Python {version}.7' ;;
    *'import sys, venv, ensurepip'*) {ensurepip} && echo {version} ;;
    *'import sys, pip'*) echo {version} ;;
    *'import cv2'*) ! [ -e no-libgl ] || grep -q opencv-python-headless pip.log ;;
    *'-m venv '*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo {version} >"$4/version" ;;
    *'-m pip '*) echo "$*" >>pip.log; ! [ -e pip-fails ] ;;
    *) exit 99 ;;
esac
"""
FAILING_SHIM = "#!/bin/sh\necho 'pyenv: python3.10: command not found' >&2\nexit 127\n"
# uv venv ... VENV
FAKE_UV = """#!/bin/sh
for venv; do :; done
[ "$1" = --version ] && exit 0
mkdir -p "$venv/bin" && cp '{python}' "$venv/bin/python" && echo uv >"$venv/version"
"""


class Checkout:
    """A copy of the script with small requirement files, in a path with spaces."""

    def __init__(self, folder: Path):
        self.root = folder / "check out"
        self.venv = self.root / ".venv"
        self.bin = folder / "bin"
        self.pyenv = folder / "py env"
        self.state = folder / "state"
        for path in (self.root / "tools", self.bin, self.state):
            path.mkdir(parents=True)
        for command in COMMANDS:
            (self.bin / command).symlink_to(shutil.which(command))
        shutil.copy(SCRIPT, self.root / "tools")
        self.requirements = self.root / "requirements.txt"
        self.requirements.write_text("# first\nmegengine==1.0\nopencv-python==1.2 # why\n")
        (self.root / "requirements-dev.txt").write_text("pytest==1.0\n")

    def script(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, path: Path, version: str, ensurepip: bool = True) -> Path:
        ensurepip = "true" if ensurepip else "false"
        text = FAKE_PYTHON.format(state=self.state, version=version, ensurepip=ensurepip)
        return self.script(path, text)

    def setup(self, *arguments, code: int = 0, **variables) -> str:
        """Runs the script and returns what it printed."""
        variables = {"PATH": self.bin, "PYENV_ROOT": self.pyenv, **variables}
        run = subprocess.run(
            ["bash", self.root / "tools" / "setup_env.sh", *arguments],
            env={name: str(value) for name, value in variables.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert run.returncode == code, run.stdout
        return run.stdout

    def chosen(self) -> str:
        return (self.venv / "version").read_text().strip()

    def pip_calls(self) -> list:
        log = self.state / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_pyenv_version_behind_a_failing_shim(checkout):
    checkout.script(checkout.bin / "python3.10", FAILING_SHIM)
    checkout.python(checkout.bin / "python3", "3.11")
    checkout.python(checkout.pyenv / "versions" / "3.9.18" / "bin" / "python", "3.9")
    checkout.python(checkout.pyenv / "versions" / "3.10.13" / "bin" / "python", "3.10")
    checkout.setup()
    assert checkout.chosen() == "3.10"


def test_newest_on_path_comes_first(checkout):
    for version in ("3.8", "3.9", "3.12"):
        checkout.python(checkout.bin / f"python{version}", version)
    checkout.python(checkout.pyenv / "versions" / "3.10.13" / "bin" / "python", "3.10")
    checkout.setup()
    assert checkout.chosen() == "3.9"


def test_python_without_ensurepip_is_passed_over(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10", ensurepip=False)
    checkout.python(checkout.bin / "python", "3.8")
    checkout.setup()
    assert checkout.chosen() == "3.8"


def test_uv_when_there_is_no_other(checkout):
    # An environment of uv's may rest on a Python without ensurepip: pip in it is enough.
    python = checkout.python(checkout.state / "python", "3.10", ensurepip=False)
    checkout.python(checkout.bin / "python3", "3.11")
    checkout.script(checkout.bin / "uv", FAKE_UV.format(python=python))
    checkout.setup()
    assert checkout.chosen() == "uv"
    assert checkout.setup() == ""


# Debian 12: Python 3.11 without ensurepip, whose pip refuses all but --target. It puts uv there.
DEBIAN_PYTHON = """#!/bin/sh
case "$*" in
    *'pip '*'--target '*'uv=='*)
        while [ "$1" != --target ]; do shift; done
        mkdir -p "$2/bin" && cp '{uv}' "$2/bin/uv" ;;
    *'-m pip '*) echo 'error: externally-managed-environment' >&2; exit 1 ;;
    *'import sys, pip'*) echo 3.11 ;;
    *) exit 1 ;;
esac
"""


def test_uv_by_a_pip_that_may_not_install(checkout):
    python = checkout.python(checkout.state / "python", "3.10", ensurepip=False)
    uv = checkout.script(checkout.state / "uv", FAKE_UV.format(python=python))
    checkout.script(checkout.bin / "python3", DEBIAN_PYTHON.format(uv=uv))
    assert "fetching uv" in checkout.setup()
    assert checkout.chosen() == "uv"
    assert checkout.setup() == ""


def test_uv_by_pipx(checkout):
    python = checkout.python(checkout.state / "python", "3.10", ensurepip=False)
    pipx = '#!/bin/sh\n[ "$1 $2" = "run --spec" ] || exit 2\nshift 4\n' + FAKE_UV.format(
        python=python
    ).replace("#!/bin/sh\n", "")
    checkout.script(checkout.bin / "pipx", pipx)
    checkout.setup()
    assert checkout.chosen() == "uv"


def test_uv_where_its_installer_puts_it(checkout):
    python = checkout.python(checkout.state / "python", "3.10", ensurepip=False)
    checkout.script(checkout.state / ".local/bin/uv", FAKE_UV.format(python=python))
    checkout.setup(HOME=checkout.state)
    assert checkout.chosen() == "uv"


def test_a_package_with_a_line_for_each_python_counts_once(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    lines = 'megengine==1.0\nnumpy==1; python_version < "3.9"\nnumpy==2; python_version >= "3.9"\n'
    checkout.requirements.write_text("# first\n" + lines)
    assert "MegEngine and 1 other packages into .venv" in checkout.setup()


@pytest.mark.parametrize("version", ["3.7", "3.11", "3.12"])
def test_no_suitable_python(checkout, version):
    checkout.python(checkout.bin / "python3", version)
    checkout.script(checkout.bin / "uv", "#!/bin/sh\nexit 2\n")  # finds none either
    message = checkout.setup(code=1)
    assert "3.8, 3.9 or 3.10" in message
    for way in ("apt-get install python3.10-venv", "pipx install uv", "astral.sh/uv/install.sh"):
        assert way in message
    assert "    pip install uv" not in message  # which Debian 12 and Ubuntu 24.04 refuse
    assert not checkout.venv.exists()


def test_variable_python_is_taken(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    checkout.setup(PYTHON=checkout.python(checkout.state / "my python", "3.8"))
    assert checkout.chosen() == "3.8"


def test_unsuitable_variable_python_is_an_error(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    python = checkout.python(checkout.state / "python", "3.11")
    message = checkout.setup(code=1, PYTHON=python)
    assert f"PYTHON={python} (Python 3.11.7)" in message
    assert "PYTHON=/none (does not run)" in checkout.setup(code=1, PYTHON="/none")
    assert not checkout.venv.exists()


def test_second_call_does_nothing(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    assert "MegEngine and 1 other packages into .venv" in checkout.setup()
    assert checkout.setup() == ""
    assert len(checkout.pip_calls()) == 1
    assert f"-r {checkout.requirements}" in checkout.pip_calls()[0]


def test_dev_installs_only_what_is_missing(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    checkout.setup()
    checkout.setup("--dev")
    assert "requirements-dev.txt" in checkout.pip_calls()[1]
    assert "requirements.txt" not in checkout.pip_calls()[1]
    assert checkout.setup() == checkout.setup("--dev") == ""
    assert len(checkout.pip_calls()) == 2


def test_changed_requirements_are_installed(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    checkout.setup()
    checkout.requirements.write_text("megengine==2.0\n")
    checkout.setup()
    assert len(checkout.pip_calls()) == 2


def test_interrupted_installation_is_repeated(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    (checkout.state / "pip-fails").touch()
    assert "run this again" in checkout.setup(code=1).splitlines()[-1]
    (checkout.state / "pip-fails").unlink()
    checkout.setup()
    assert len(checkout.pip_calls()) == 2
    assert checkout.setup() == ""


def test_interrupted_upgrade_is_repeated(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    checkout.setup()
    before = checkout.requirements.read_text()
    checkout.requirements.write_text("megengine==2.0\n")
    (checkout.state / "pip-fails").touch()
    checkout.setup(code=1)
    (checkout.state / "pip-fails").unlink()
    # Half of the upgrade may be in place, so that the old requirements are not met either.
    checkout.requirements.write_text(before)
    checkout.setup()
    assert len(checkout.pip_calls()) == 3
    assert checkout.setup() == ""


def test_broken_environment_is_rebuilt(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    checkout.setup()
    (checkout.venv / "bin" / "python").unlink()
    (checkout.venv / "stale").touch()
    checkout.setup()
    assert not (checkout.venv / "stale").exists()
    assert len(checkout.pip_calls()) == 2


def test_named_folder(checkout, tmp_path):
    checkout.python(checkout.bin / "python3.10", "3.10")
    venv = tmp_path / "my venv"
    assert f"into {venv}" in checkout.setup("--dev", venv)
    (venv / "bin" / "python").unlink()
    checkout.setup("--dev", venv)  # an environment that the script made may be rebuilt
    assert not checkout.venv.exists()


def test_folder_of_the_user_is_never_deleted(checkout, tmp_path):
    checkout.python(checkout.bin / "python3.10", "3.10")
    mine = tmp_path / "mine"
    checkout.python(mine / "bin" / "python", "3.12")
    assert "remove it or name another" in checkout.setup(mine, code=1)
    assert (mine / "bin" / "python").exists()


def test_headless_opencv_without_libgl(checkout):
    checkout.python(checkout.bin / "python3.10", "3.10")
    (checkout.state / "no-libgl").touch()
    checkout.setup()
    install, uninstall, headless = checkout.pip_calls()
    assert uninstall.endswith("uninstall --yes opencv-python")
    assert headless.endswith("opencv-python-headless==1.2")
    assert checkout.setup() == ""


def test_unknown_option(checkout):
    assert "usage:" in checkout.setup("--all", code=1)


def make_wheel(folder: Path, name: str, module: str, text: str):
    """The smallest wheel that pip installs: one module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}.py", text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{module}.py,,\n{info}/RECORD,,\n")


def test_real_python_and_pip(checkout, tmp_path):
    """The real venv and pip, with tiny wheels; cv2 of opencv_python cannot be imported."""
    pytest.importorskip("ensurepip")
    make_wheel(tmp_path, "megengine", "megengine", "")
    make_wheel(tmp_path, "opencv_python", "cv2", "raise ImportError('libGL.so.1')")
    make_wheel(tmp_path, "opencv_python_headless", "cv2", "")
    checkout.requirements.write_text("megengine==1.0\nopencv-python==1.0 # why\n")
    pip = {"PIP_NO_INDEX": 1, "PIP_FIND_LINKS": tmp_path.as_uri()}
    pip.update({"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": 1})
    checkout.setup(PYTHON=sys.executable, **pip)
    checkout.requirements.write_text("megengine==1.0\nopencv-python==1.0\n")
    checkout.setup(**pip)  # installs opencv_python over the headless build: swapped again
    python = checkout.venv / "bin" / "python"
    assert subprocess.run([python, "-I", "-c", "import megengine, cv2"]).returncode == 0
    assert checkout.setup() == ""
