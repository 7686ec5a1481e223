import errno
import fcntl
import subprocess
import sys

import pytest

from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.errors import UserError
from official.vision.classification.training import run_folder
from official.vision.classification.training.run_folder import RunFolder
from tests.scripts import ROOT


def make(tmp_path, *files, resume=None, keep=2):
    """A run's folder with these files in it, each of which holds its own name."""
    folder = tmp_path / "save" / "resnet18"
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_text(name)
    return RunFolder(str(tmp_path / "save"), "resnet18", resume, keep)


def names(paths):
    return [path.name for path in paths]


LATEST = "checkpoint.safetensors"


def older(step):
    return f"checkpoint-{step}.safetensors"


def test_checkpoints_come_latest_first_in_the_order_of_numbers(tmp_path):
    foreign = ("checkpoint-9.pkl", "checkpoint-best.safetensors", "checkpoint-7.safetensors.part")
    run = make(tmp_path, older(9), older(100), older(20), LATEST, "best.safetensors", *foreign)
    assert names(run.checkpoints()) == [LATEST, older(100), older(20), older(9)]
    assert all(path.parent == run.path for path in run.checkpoints())


def test_without_the_latest_the_one_before_is_the_first(tmp_path):
    """What a kill leaves between making room and writing."""
    assert names(make(tmp_path, older(9), older(6)).checkpoints()) == [older(9), older(6)]


def test_an_empty_or_missing_folder_has_none(tmp_path):
    assert RunFolder(str(tmp_path / "no"), "resnet18", "auto").checkpoints() == []
    assert RunFolder(str(tmp_path / "no"), "resnet18", "auto").resume_from == []


@pytest.mark.parametrize(
    ("resume", "sources"), [("auto", [LATEST, older(3)]), (None, []), ("x.safetensors", ["x"])]
)
def test_what_a_run_is_resumed_from(tmp_path, resume, sources):
    run = make(tmp_path, older(3), LATEST, resume=resume)
    found = names(run.resume_from)
    assert found == (["x.safetensors"] if sources == ["x"] else sources)


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (1, [LATEST]),
        (2, [LATEST, older(100)]),
        (3, [LATEST, older(100), older(20)]),
        (9, [LATEST, older(100), older(20), older(9)]),
    ],
)
def test_the_oldest_go(tmp_path, keep, stay):
    run = make(tmp_path, older(9), older(100), older(20), LATEST, "best.safetensors", keep=keep)
    run.prune()
    assert names(run.checkpoints()) == stay
    assert run.best.exists()


def test_room_is_made_by_a_new_name(tmp_path):
    run = make(tmp_path, older(6), LATEST)
    run.make_room(9)
    assert names(run.checkpoints()) == [older(9), older(6)]
    assert (run.path / older(9)).read_text() == LATEST
    run.make_room(12)  # there is nothing to make room for
    assert names(run.checkpoints()) == [older(9), older(6)]


def test_a_new_run_is_not_put_on_top_of_another(tmp_path):
    for files in ((LATEST,), (older(9),)):
        run = make(tmp_path / files[0], *files, "metrics.jsonl", "log.txt")
        with pytest.raises(UserError) as caught:
            run.prepare()
        message = str(caught.value)
        assert message.startswith(f"{run.path / files[0]}: holds a run already")
        assert "--resume auto" in message and "--save" in message
        assert sorted(names(run.path.iterdir())) == sorted((*files, "metrics.jsonl", "log.txt"))


def test_a_run_resumes_in_its_own_folder(tmp_path):
    files = (LATEST, older(9), "metrics.jsonl", "log.txt", "best.safetensors")
    for resume in ("auto", str(tmp_path / "save" / "resnet18" / older(9))):
        run = make(tmp_path, *files, f"{LATEST}.part", resume=resume)
        run.prepare()
        assert sorted(names(run.path.iterdir())) == sorted(files)


@pytest.mark.parametrize("file", ["elsewhere.safetensors", "save/resnet18/best.safetensors"])
def test_a_run_from_a_file_is_not_put_on_top_of_another(tmp_path, file):
    (tmp_path / "elsewhere.safetensors").write_text("")
    run = make(tmp_path, LATEST, "best.safetensors", resume=str(tmp_path / file))
    with pytest.raises(UserError, match="holds a run already"):
        run.prepare()


def test_a_link_to_a_checkpoint_is_that_checkpoint(tmp_path):
    link = tmp_path / "link"
    run = make(tmp_path, LATEST, older(9), resume=str(link))
    link.symlink_to(run.checkpoint)
    run.prepare()
    assert run.is_latest(link)
    assert not run.is_latest(run.path / older(9))
    run.checkpoint.unlink()
    assert not run.is_latest(run.path / older(9))


TRACES = [
    *("best.safetensors", "metrics.jsonl", "log.txt", "recipe.yaml", "curves.png"),
    *("checkpoint.pkl", "checkpoint_12.pkl", "model_best.pkl", "log-resnet18.txt"),
]


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("resume", [None, "elsewhere.safetensors", "auto"])
def test_whatever_a_run_has_left_is_not_overwritten(tmp_path, trace, resume):
    """Of this project, or of MegEngine/Models."""
    run = make(tmp_path, trace, "notes.txt", resume=resume)
    if resume == "auto" and trace in ("metrics.jsonl", "log.txt", "recipe.yaml"):
        run.prepare()  # ended before its first checkpoint: goes on, from the beginning
    else:
        with pytest.raises(UserError) as caught:
            run.prepare()
        assert str(caught.value).startswith(f"{run.path / trace}: belongs to a run ")
        assert "--save" in str(caught.value)
        is_begun = trace in ("metrics.jsonl", "log.txt", "recipe.yaml")
        assert ("begin it again with --resume auto" in str(caught.value)) == is_begun
    assert {path.name: path.read_text() for path in run.path.iterdir()} == {
        name: name for name in (trace, "notes.txt")
    }


def test_what_others_keep_in_the_folder_stays_and_halves_of_files_go(tmp_path):
    run = make(tmp_path, "notes.txt", "photo.png", "recipe.yaml.part", f"{LATEST}.part")
    run.prepare()
    assert sorted(names(run.path.iterdir())) == ["notes.txt", "photo.png"]


def test_one_run_at_a_time(tmp_path):
    first, second = make(tmp_path), make(tmp_path, resume="auto")
    with first.locked():
        for _ in range(2):
            expected = "resnet18: another run is at work here; .* --save"
            with pytest.raises(UserError, match=expected), second.locked():
                pytest.fail("two at once")
        with RunFolder(str(tmp_path / "save"), "resnet50", None).locked():
            pass  # another folder
    assert names(first.path.iterdir()) == []
    with second.locked():
        assert len(names(first.path.iterdir())) == 1


HOLD = """
import sys, time
from official.vision.classification.training.run_folder import RunFolder
with RunFolder(sys.argv[1], "resnet18", None).locked():
    print("locked", flush=True)
    time.sleep(100)
"""


def test_a_lock_dies_with_its_process(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "save")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "locked\n"
        run = make(tmp_path)
        with pytest.raises(UserError, match="another run is at work here"), run.locked():
            pytest.fail("two at once")
        process.kill()
    with run.locked():
        pass
    assert names(run.path.iterdir()) == []


def test_a_lock_whose_file_has_gone_keeps_nobody_out_and_lets_nobody_in(tmp_path, monkeypatch):
    """Whoever opens the file just before it is removed has locked nothing."""
    first, second, third = make(tmp_path), make(tmp_path), make(tmp_path)
    flock, opened = fcntl.flock, []

    def late(descriptor, how):
        if not opened:  # the second has opened the file when the first ends
            opened.append(descriptor)
            holding.__exit__(None, None, None)
        flock(descriptor, how)

    holding = first.locked()
    holding.__enter__()
    monkeypatch.setattr(run_folder.fcntl, "flock", late)
    refused = pytest.raises(UserError, match="another run is at work here")
    with second.locked(), refused, third.locked():
        pytest.fail("two at once")


def test_a_disk_without_locks(tmp_path, monkeypatch, caplog):
    """As some network file systems: the run is made, with a warning."""

    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    run = make(tmp_path)
    with run.locked():
        (warning,) = [record.getMessage() for record in caplog.records]
        assert warning.startswith(f"{run.path}: cannot be locked (No locks available); ")
    assert names(run.path.iterdir()) == []


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    run, other = make(tmp_path), tmp_path / "other"
    (run.path / ".lock").symlink_to(other)
    with pytest.raises(UserError, match=".lock: cannot be made: "), run.locked():
        pytest.fail("it is not locked")
    assert not other.exists()


def test_a_folder_is_made(tmp_path):
    run = RunFolder(str(tmp_path / "a" / "b"), "resnet18", None)
    run.prepare()
    assert (tmp_path / "a" / "b" / "resnet18").is_dir()
    run.prepare()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    run = RunFolder(str(tmp_path / "file"), "resnet18", None)
    with pytest.raises(UserError, match="file/resnet18: cannot be made: .*; .* --save"):
        run.prepare()


def test_the_recipe_is_read_back_as_it_was(tmp_path):
    run = make(tmp_path)
    recipe = load_recipe("resnet50_8xb256-rsb-a1-600e_in1k").with_epochs(7)
    run.write_recipe(recipe)
    assert load_recipe(str(run.path / "recipe.yaml")) == recipe
