"""What users type in another project's spelling, and in haste: one line that says the way out."""

import pytest

from tests import documents
from tests.scripts import load_script


def said(capsys, script, *words):
    """Exit code, and what the script says in this process."""
    try:
        code = load_script(script).main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("-c", "configs/resnetv2/resnetv2_50_ascend.yaml"),
            2,
            "resnetv2/resnetv2_50_ascend.yaml: no such file; did you mean -c resnetv2_50?",
        ),
        (
            ("-c", "configs/resnet/resnet50_8xb32_in1k.py"),
            2,
            "no such file; did you mean -c resnet50_8xb32_in1k?",
        ),
        (("--set", "early_stopping=3"), 2, "unknown key 'early_stopping'; docs/recipes.md has all"),
        (("--set", "lr=3"), 2, "unknown key 'lr'; did you mean 'optimizer.lr'?"),
        (("--arch", "ResNet50"), 2, "unknown network 'ResNet50': did you mean resnet50?"),
        (("--arch", "resnet-50"), 2, "unknown network 'resnet-50': did you mean resnet50?"),
        (("--device", "mps"), 2, "'mps' is none of auto, gpu (or cuda) and cpu"),
        (("--device", "cuda:1"), 2, "CUDA_VISIBLE_DEVICES=1 before the command chooses that GPU"),
        (("--device", "gpu0"), 2, "CUDA_VISIBLE_DEVICES=0 before the command chooses that GPU"),
        (("--dist-port", "70000"), 2, "'70000' is no port; they go up to 65535"),
        (("extra", "words"), 2, "unrecognized arguments: "),
    ],
)
def test_train_py_is_asked_otherwise(tiny_images, tmp_path, capsys, words, code, message):
    found, out, err = said(
        capsys, "train.py", "--data", tiny_images, "--save", tmp_path / "out", *words
    )
    assert (found, out) == (code, "") and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["cuda", "CUDA", "GPU"])
def test_cuda_is_a_gpu(word, monkeypatch, tiny_images, tmp_path, capsys):
    for name in ("train", "test", "inference"):
        script = load_script(f"{name}.py")
        assert script.flags.parse(script.parser(), ["--device", word]).device == "gpu"


def test_a_part_of_a_data_set_is_not_taken_for_all_of_it(tiny_images, tmp_path, capsys):
    words = ("--data", tiny_images / "train", "--save", tmp_path / "out", "--device", "cpu")
    code, out, err = said(capsys, "train.py", *words)
    assert code == 1 and f"did you mean --data {tiny_images}?" in err
    assert len(err.splitlines()) == 1


def _rows(tiny_images, split):
    paths = sorted((tiny_images / split).rglob("*.png"))
    return [(path, path.parent.name) for path in paths]


def test_a_text_file_with_a_path_and_a_number_in_each_line(tiny_images, tmp_path, capsys):
    classes = sorted({name for _, name in _rows(tiny_images, "train")})
    rows = _rows(tiny_images, "train") + _rows(tiny_images, "val")
    lines = [f"{path} {classes.index(name)}" for path, name in rows]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    code, out, _ = said(capsys, "tools/check_data.py", "--data", tmp_path / "list.txt")
    assert code == 0 and "39" in out and out.splitlines()[-1].endswith(": sound")
    (tmp_path / "list.txt").write_text("hello\nworld\n")
    code, _, err = said(capsys, "tools/check_data.py", "--data", tmp_path / "list.txt")
    assert code == 1 and "line 1 has 'hello'; expected a path, a space and the number" in err


def test_columns_that_are_called_otherwise(tiny_images, tmp_path, capsys):
    lines = ["filename,class,split"]
    for split in ("train", "val"):
        lines += [f"{path},{name},{split}" for path, name in _rows(tiny_images, split)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    code, out, _ = said(capsys, "tools/check_data.py", "--data", tmp_path / "list.csv")
    assert code == 0 and out.splitlines()[-1].endswith(": sound")
    assert [line.split()[1] for line in out.splitlines()[1:3]] == ["24", "15"]


@pytest.mark.parametrize("script", documents.scripts())
def test_help_is_in_plain_words(script, capsys):
    with pytest.raises(SystemExit):
        load_script(script).main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for phrase in ("how it is told", "tell them apart", "apart", " told", "found there", ", there"):
        assert phrase not in text
