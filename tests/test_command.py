"""The command resnet: one word, and then what that word's script takes."""

import re
import sys

import pytest

from official import startup
from official.vision.classification import __version__
from tests.scripts import IN_PACKAGE, ROOT

PREFIX = "official.vision.classification"


@pytest.fixture()
def command(monkeypatch, capsys):
    """Calls resnet in this process; its exit code, stdout and stderr."""
    monkeypatch.setattr(startup, "prepare", lambda: None)

    def start(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/resnet", *words])
        try:
            code = startup.resnet()
        except SystemExit as stop:
            code = stop.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return start


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_what_there_is(command, words):
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    for name, (_, what) in startup.COMMANDS.items():
        assert f"  {name} " in out and what in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", startup.COMMANDS)
def test_help_of_each_speaks_of_the_command(command, name):
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: resnet {name} [flags]")
    assert f" resnet {name}" in out.split("\n\n", 1)[1]  # an example
    assert "python " not in out


@pytest.mark.parametrize("name", startup.COMMANDS)
def test_errors_name_the_command(command, name):
    code, out, err = command(name, "--no-such-flag")
    assert (code, out) == (2, "")
    assert err.startswith(f"resnet {name}: error: ") and len(err.splitlines()) == 1


def test_every_script_that_has_flags_is_a_command():
    modules = {module for module, _ in startup.COMMANDS.values()}
    assert set(IN_PACKAGE.values()) <= modules


@pytest.mark.parametrize(
    ("word", "hint"),
    [("check-dat", "did you mean check-data?"), ("xyzzy", "there are train, test, predict, ")],
)
def test_a_word_that_is_none(command, word, hint):
    code, out, err = command(word, "--data", "x")
    assert (code, out) == (2, "")
    assert err == err.splitlines()[0] + "\n" and hint in err


def test_version(command):
    assert command("--version") == (0, f"resnet {__version__}\n", "")


def test_list(command):
    code, out, _ = command("list", "resnet20_cifar*")
    assert code == 0 and "resnet20_cifar" in out and "resnet50" not in out
    code, out, _ = command("list", "resnet50*", "--min-top1", "81.2")
    rows = out.splitlines()[1:-2]
    assert code == 0 and len(rows) > 1
    assert all(float(re.search(r" (\d\d\.\d\d) ", row)[1]) >= 81.2 for row in rows)
    assert command("list", "xyzzy*")[0] == 2


def test_what_is_not_installed(command, monkeypatch, tmp_path):
    """pip installs the package official, and not tools/."""
    monkeypatch.setattr(startup, "_ROOT", str(tmp_path))
    code, out, err = command("benchmark")
    assert (code, out) == (1, "")
    assert err == (
        "resnet benchmark: error: is not installed; it needs a checkout of the repository, with "
        "the folder tools/\n"
    )


@pytest.mark.parametrize("script", [path for path in IN_PACKAGE if path.startswith("tools/")])
def test_a_tool_calls_its_command(script):
    """And says the same on top."""
    module = ROOT.joinpath(*PREFIX.split("."), *IN_PACKAGE[script].split(".")).with_suffix(".py")
    first = [
        path.read_text("utf-8").split('"""')[1].splitlines()[0] for path in (module, ROOT / script)
    ]
    assert first[0] == first[1]
    assert f'startup.run("{IN_PACKAGE[script]}")' in (ROOT / script).read_text("utf-8")
