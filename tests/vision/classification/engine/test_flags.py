import subprocess
import sys

import pytest

from official.vision.classification.engine import flags
from official.vision.classification.inference import main, parser


def test_a_home_in_a_list_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    args = flags.parse(parser(), ["--image=~/a.jpg", "b~.jpg"])
    assert args.image + args.images == ["/home/someone/a.jpg", "b~.jpg"]


@pytest.mark.parametrize("words", [["--csv=~/out.csv"], ["--image=~"]])
def test_a_home_that_is_not_there(monkeypatch, capsys, words):
    """As in a container whose user has no name; a folder called ~ would be made."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    with pytest.raises(SystemExit) as caught:
        flags.parse(parser(), words)
    assert caught.value.code == 2
    assert "there is no home folder (HOME); give the whole path" in capsys.readouterr().err


def test_a_file_may_be_called_like_an_account(monkeypatch):
    assert flags.parse(parser(), ["~nobody-of-that-name.jpg"]).images == [
        "~nobody-of-that-name.jpg"
    ]


@pytest.mark.parametrize("words", [["--no-such-flag=" + "x" * 9000], ["--image=" + "x/" * 9000]])
def test_a_message_is_never_as_long_as_a_name_may_be(capsys, words):
    try:
        code = main(words)
    except SystemExit as error:
        code = error.code
    error = capsys.readouterr().err
    assert code in (1, 2) and 1000 < len(error) < 2200 and error.count("\n") == 1
    assert "\u2026" in error


def test_what_is_not_understood_cannot_steer_the_terminal(capsys):
    with pytest.raises(SystemExit):
        flags.parse(parser(), ["--\x1b[31mred", "cat.jpg"])
    assert "\\x1b[31mred" in capsys.readouterr().err


def test_too_little_memory_is_one_line(capsys):
    def start(args):
        raise MemoryError

    assert flags.run(parser(), start, []) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("inference.py: error: there is not enough memory")
    assert err.count("\n") == 1


def test_memory_that_does_not_suffice():
    """MegEngine tells of it later, with a trace of its own; and once more at the end."""
    code = (
        "import megengine.functional as F, sys\n"
        "from official.vision.classification.engine import device, flags\n"
        "device.use_device('cpu')\n"
        "parser = flags.Parser('train.py', 'doc\\n\\n')\n"
        "huge = lambda args: F.zeros((1 << 22, 1 << 22)).mean().numpy()\n"
        "sys.exit(flags.run(parser, huge, []))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    told = done.stderr.splitlines()  # with what MegEngine says of CUDA in its wheel for Python 3.8
    assert [line for line in told if not line.startswith(("info: ", "debug: "))] == [
        "train.py: error: there is not enough memory; use a smaller --batch-size, or give the "
        "process more"
    ]


def test_other_errors_of_megengine_are_not_hidden():
    parser = flags.Parser("train.py", "doc\n\n")
    with pytest.raises(RuntimeError, match="assertion"):
        flags.run(parser, fails, [])


def fails(args):
    raise RuntimeError("assertion failed")
