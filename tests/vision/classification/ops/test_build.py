"""How the native kernels are compiled, with a source that takes no time to compile."""

import os
import stat
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from official.vision.classification.ops import build
from official.vision.classification.ops.build import Kernels, KernelsUnavailable, load_kernels

ROOT = Path(__file__).resolve().parents[4]
SOURCE = (
    '#include "threads.h"\nextern "C" void resnet_set_threads(int count) { threads = count; }\n'
)
HEADER = "static int threads = 1;\n"


@pytest.fixture()
def sources(tmp_path, monkeypatch):
    """A folder with such a source, and an empty cache."""
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / "a.cpp").write_text(SOURCE)
    (folder / "threads.h").write_text(HEADER)
    monkeypatch.setattr(build, "_SOURCES", folder)
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture()
def compiler(kernels):
    """Skips where there is none, as ``kernels`` does."""


@pytest.fixture()
def reason():
    """What ``load_kernels`` says, in one line."""

    def ask():
        with pytest.raises(KernelsUnavailable) as caught:
            load_kernels(1)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return ask


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / "home" / "resnet_ops").glob("*"))


def stand_in(folder, text):
    """A compiler that is a shell script; the file to write is its last argument."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\nfor out; do :; done\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_compiled_once(compiler, sources, tmp_path, monkeypatch):
    commands = []
    output = build._output
    monkeypatch.setattr(
        build, "_output", lambda command: commands.append(command) or output(command)
    )
    for threads in (2, 1, 2):
        assert load_kernels(threads).threads == threads
    assert sum("-o" in command for command in commands) == 1
    (library,) = cached(tmp_path)
    assert library.startswith("resnet_")
    assert library.endswith(".so")


def test_compiled_again_when_something_changes(compiler, sources, tmp_path, monkeypatch):
    names = [build._library().name]

    def compiled_anew():
        names.append(build._library().name)
        return len(set(names)) == len(names)

    (sources / "a.cpp").write_text(SOURCE + "// changed\n")
    assert compiled_anew()
    (sources / "threads.h").write_text(HEADER + "// changed\n")
    assert compiled_anew()
    (sources / "b.cpp").write_text("int another;\n")
    assert compiled_anew()
    flags = build._flags()
    monkeypatch.setattr(build, "_flags", lambda: [*flags, "-DCHANGED"])
    assert compiled_anew()
    monkeypatch.setattr(build, "processor_flags", lambda: ["another", "processor"])
    assert compiled_anew()
    version = metadata.version
    for package in ("megengine", "onednn-cpu-gomp"):
        monkeypatch.setattr(
            build.metadata, "version", lambda name, p=package: version(name) + "+" * (name == p)
        )
        assert compiled_anew()
    monkeypatch.setenv("CXX", stand_in(sources, 'exec g++ "$@"'))
    assert compiled_anew()
    assert cached(tmp_path) == sorted(names)
    assert build._library().name == names[-1]


def test_no_compiler(sources, reason, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert reason() == "no C++ compiler (g++) was found"


def test_a_compiler_that_is_not_there(sources, reason, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    assert reason().startswith("/nonexistent/g++: ")
    assert "No such file" in reason()


def test_flags_that_are_no_shell_words(sources, reason, monkeypatch):
    monkeypatch.setenv("CXXFLAGS", '-O2 "')
    assert reason() == "CXXFLAGS: No closing quotation"


def test_a_compile_error(compiler, sources, reason, tmp_path):
    (sources / "a.cpp").write_text("#warning not this\nint second = nothing;\n")
    assert "a.cpp:2:14: error: " in reason()
    assert cached(tmp_path) == []


def test_an_error_without_a_word(sources, reason, monkeypatch):
    monkeypatch.setenv("CXX", stand_in(sources, "exit 1"))
    assert reason().endswith("compiler: it failed")


def test_a_compiler_that_stops_half_way_leaves_nothing(sources, reason, monkeypatch, tmp_path):
    script = stand_in(sources, 'echo half > "$out"; echo "error: no space left" >&2; exit 1')
    monkeypatch.setenv("CXX", script)
    assert reason().endswith("compiler: error: no space left")
    assert cached(tmp_path) == []


def test_a_compiler_that_never_ends(sources, reason, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", stand_in(sources, "exec sleep 60"))
    monkeypatch.setattr(build, "_TIMEOUT", 0.5)
    assert "timed out after 0.5 seconds" in reason()
    assert cached(tmp_path) == []


@pytest.mark.parametrize("package", ["onednn-cpu-gomp", "onednn-devel-cpu-gomp"])
def test_a_package_that_is_not_installed(sources, reason, monkeypatch, package):
    distribution = metadata.distribution

    def find(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setenv("CXX", stand_in(sources, "exit 1"))
    monkeypatch.setattr(build.metadata, "distribution", find)
    assert reason() == f"the package {package} is not installed"


@pytest.mark.parametrize("files", [None, []])
def test_a_package_without_its_files(sources, reason, monkeypatch, files):
    class Empty:
        pass

    Empty.files = files
    monkeypatch.setenv("CXX", stand_in(sources, "exit 1"))
    monkeypatch.setattr(build.metadata, "distribution", lambda name: Empty)
    assert reason() == "the package onednn-devel-cpu-gomp has no oneapi/dnnl/dnnl.hpp"


@pytest.fixture()
def temporary(tmp_path, monkeypatch):
    """Where temporary files go."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("blocked", ["home", "home/resnet_ops"])
def test_a_cache_that_cannot_be_written(compiler, sources, temporary, tmp_path, blocked, caplog):
    path = tmp_path / blocked
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file, where a folder should be")
    assert load_kernels(1).threads == 1
    (library,) = temporary.rglob("resnet_*.so")
    assert f"the CPU kernels are kept in {library.parent}" in caplog.text
    assert str(path) in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_of_somebody_else(compiler, sources, temporary, tmp_path, caplog):
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o500)
    assert load_kernels(1).threads == 1
    assert f"{tmp_path / 'home' / 'resnet_ops'}: Permission denied" in caplog.text


PLANTED = """
#include <cstdlib>
#include <fstream>
static int planted = (std::ofstream("{mark}") << "run", 0);
"""


@pytest.mark.parametrize("way", ["folder of all", "file of all", "folder above of all"])
def test_a_planted_library_is_not_run(compiler, sources, temporary, tmp_path, way, caplog):
    """A library of the right name, where others may write."""
    mark = tmp_path / "mark"
    library = build._library()
    (tmp_path / "planted.cpp").write_text(PLANTED.replace("{mark}", str(mark)))
    command = ["g++", "-shared", "-fPIC", str(tmp_path / "planted.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    opened = {
        "folder of all": (library.parent, 0o777),
        "file of all": (library, 0o777),
        "folder above of all": (tmp_path / "home", 0o777),
    }
    library.chmod(0o700)
    opened[way][0].chmod(opened[way][1])
    if way == "file of all":
        with pytest.raises(KernelsUnavailable, match="can be written by others.*delete"):
            load_kernels(1)
    else:
        assert load_kernels(1).threads == 1
        assert [path.parent.parent for path in temporary.rglob("resnet_*.so")] == [temporary]
        assert "by others" in caplog.text and "kept in" in caplog.text
    assert not mark.exists()


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_the_cache_is_closed_whatever_the_umask(compiler, sources, tmp_path, umask, caplog):
    before = os.umask(umask)
    try:
        (tmp_path / "home").mkdir(mode=0o755)
        library = build._library()
    finally:
        os.umask(before)
    assert library.parent == tmp_path / "home" / "resnet_ops"
    assert stat.S_IMODE(library.parent.stat().st_mode) & 0o022 == 0
    assert stat.S_IMODE(library.stat().st_mode) == 0o700
    assert load_kernels(1).threads == 1 and "kept in" not in caplog.text


@pytest.mark.parametrize("variable", ["MGE_HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("value", ["", "cache"])
def test_no_library_of_the_working_folder(
    compiler, sources, temporary, tmp_path, monkeypatch, variable, value
):
    monkeypatch.delenv("MGE_HOME")
    monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    assert tmp_path / "tmp" in build._library().parents
    assert not (tmp_path / "megengine").exists() and not (tmp_path / "cache").exists()


def test_a_library_that_is_broken(compiler, sources, reason):
    library = build._library()
    library.write_text("no library")
    assert reason().startswith(f"{library}: ")


def test_a_library_of_something_else(compiler, sources, reason, tmp_path):
    library = build._library()
    (tmp_path / "other.cpp").write_text("int other;")
    command = ["g++", "-shared", "-fPIC", str(tmp_path / "other.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    assert reason() == f"{library}: has no kernels of ours; delete it"


def test_a_line_before_it_is_compiled(compiler, sources, caplog):
    build._library()
    build._library()
    assert [record.message for record in caplog.records] == [
        "compiling the CPU kernels for this machine, once; it takes up to a minute"
    ]


def test_two_processes_at_once(compiler, sources, tmp_path):
    """Each compiles for itself; the slower one puts its library in the place of the other's."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from official.vision.classification.ops import build\n"
        "build._SOURCES = Path(sys.argv[2])\n"
        "kernels = build.load_kernels(3)\n"
        "assert kernels.threads == 3\n"
    )
    command = stand_in(sources, 'touch "$out.begun"; sleep 1; rm "$out.begun"; exec g++ "$@"')
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(ROOT), str(sources)],
            env={**os.environ, "CXX": command},
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in processes:
        _, message = process.communicate(timeout=120)
        assert process.returncode == 0, message
    (library,) = cached(tmp_path)
    Kernels(tmp_path / "home" / "resnet_ops" / library, 1)


def test_the_library_of_another_process_in_the_place_of_an_open_one(compiler, tmp_path):
    """Registering the operators of a second file would end the process."""
    script = (
        "import os, shutil, sys\n"
        "from pathlib import Path\n"
        "from official.vision.classification.ops import build\n"
        "library = build._library()\n"
        "build.Kernels(library, 1)\n"
        "place = Path(sys.argv[1])\n"
        "for name in ('first', 'second'):\n"
        "    copy = place / name / library.name\n"
        "    copy.parent.mkdir(0o700)\n"
        "    shutil.copy(library, copy)\n"
        "    copy.chmod(0o700)\n"
        "    assert build.Kernels(copy, 2).threads == 2\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr
