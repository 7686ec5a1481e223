"""--help of the tools that write files prints and does nothing else."""

from pathlib import Path

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["demo", "draw_pictures", "update_tables"])
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--no-such-flag", 2)])
def test_nothing_is_written(name, flag, code, capsys, monkeypatch):
    script = load_script(f"tools/{name}.py")

    def refuse(*args, **kwargs):
        raise AssertionError("something was done")

    for module, attribute in (
        ("shutil", "rmtree"),
        ("subprocess", "run"),
        ("pathlib.Path", "mkdir"),
    ):
        monkeypatch.setattr(f"{module}.{attribute}", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SystemExit) as stop:
        script.main([flag])
    assert stop.value.code == code
    out = capsys.readouterr()
    assert (script.__doc__.splitlines()[0] in out.out) == (code == 0)
