import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from official.vision.classification.engine.console import Console, read_metrics


def test_lines_go_to_stdout_and_to_the_log(tmp_path, capsys):
    console = Console(folder=tmp_path)
    console.line("one")
    console.tick("two")
    assert capsys.readouterr().out == "one\ntwo\n"
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


def test_a_name_that_is_no_utf_8_is_escaped_in_the_log(tmp_path, capsys):
    """As a folder from a machine of another encoding has."""
    Console(folder=tmp_path).tick("results go to caf\udce9")
    assert (tmp_path / "log.txt").read_text() == "results go to caf\\udce9\n"


def test_where_a_bar_is_drawn_progress_goes_to_the_log_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console = Console(folder=tmp_path)
    console.start_bar("Epoch 1/2", 100)
    console.advance(40, loss="1.0")
    console.tick("two")
    console.stop_bar()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Epoch 1/2" in captured.err
    assert (tmp_path / "log.txt").read_text() == "two\n"


def test_a_bar_has_plain_numbers_and_the_time_left_of_the_run(monkeypatch, capsys):
    """Not 12.8k; and it is as wide as the terminal is now, also after that was resized."""
    sizes = iter([(120, 20)] * 2 + [(95, 20)] * 100)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: next(sizes))
    console = Console()
    console.start_bar("Epoch 1/2", 12800)
    console._bar.mininterval = 0
    for _ in range(3):
        console.advance(2500, **{"run left": "5.0 minutes"})
    console.stop_bar()
    drawn = [line for line in capsys.readouterr().err.split("\r") if "Epoch" in line]
    assert "7500/12800" in drawn[-1] and " images/s" in drawn[-1]
    assert "run left=5.0 minutes" in drawn[-1]
    assert max(map(len, drawn)) > 110 and len(drawn[-1].rstrip()) <= 95


@pytest.mark.parametrize("has_log", [True, False])
def test_a_run_outlives_what_it_is_piped_into(tmp_path, has_log):
    """Ctrl-C ends tee before the run is saved."""
    folder = tmp_path if has_log else None
    code = (
        "import pathlib, sys\n"
        "from official.vision.classification.engine.console import Console\n"
        f"console = Console(folder={str(folder)!r} and pathlib.Path({str(folder)!r}))\n"
        "sys.stdin.read()\n"
        "for number in range(3): console.line(f'line {number}')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[4],
    ) as process:
        process.stdout.close()
        process.stdin.close()
        code = process.wait(timeout=60)
    assert (code == 0) == has_log
    if has_log:
        assert (tmp_path / "log.txt").read_text() == "line 0\nline 1\nline 2\n"


def test_other_ranks_are_silent(tmp_path, capsys):
    console = Console(speak=False, folder=tmp_path)
    console.line("one")
    console.tick("two")
    console.start_bar("Epoch", 10)
    console.advance(1)
    console.stop_bar()
    console.metrics(step=1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert not list(tmp_path.iterdir())


def test_metrics_are_rewound_to_the_step_of_a_checkpoint(tmp_path):
    console = Console(folder=tmp_path)
    for step in (1, 2, 3):
        console.metrics(event="train", step=step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "tra')  # cut short by a crash
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    console.rewind_metrics(2)
    console.metrics(event="train", step=3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    "row", ["[]", "3", "null", '{"step": "1"}', '{"step": true}', "[" * 100_000, "\udcff"]
)
def test_rows_end_at_one_that_is_damaged(tmp_path, row):
    """Whoever has put it there: a run goes on from what is before it."""
    text = '{"step": 1}\n' + row + '\n{"step": 2}\n'
    (tmp_path / "metrics.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    assert read_metrics(tmp_path) == [{"step": 1}]
    Console(folder=tmp_path).rewind_metrics(5)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", rb"\u732b caf\xe9 \u2026"),
        ("iso-8859-1", b"\\u732b caf\xe9 \\u2026"),
        ("utf-8", "猫 café …".encode()),
        ("gb18030", "猫 café …".encode("gb18030")),
    ],
)
def test_letters_that_the_encoding_of_stdout_lacks_are_escaped(encoding, expected):
    code = (
        "from official import startup\n"
        "startup.prepare()\n"  # without it MegEngine greets on Python 3.8
        "from official.vision.classification.engine.console import Console\n"
        "Console().line('\\u732b caf\\xe9 \\u2026')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=Path(__file__).resolve().parents[4],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "ignore"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == expected + b"\n"
