"""The three scripts as a user meets them: help, defaults, exit codes, and errors of one line."""

import json
from pathlib import Path

import megengine as mge
import pytest

from official.vision.classification.distributed.launch import Topology
from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.resnet.model import resnet18
from official.vision.classification.zoo import get_model
from official.vision.classification.zoo.trained import NetworkConfig, look_up
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]


SCRIPTS = {name: load_script(f"{name}.py") for name in ("train", "test", "inference")}


def fails(capsys, name, *arguments):
    """Exit code and stderr of a call that goes wrong."""
    try:
        code = SCRIPTS[name].main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert 1 <= len(captured.err.splitlines()) <= 2
    assert captured.err.startswith(f"{name}.py: error: ")
    return code, captured.err


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(script, name):
    done = script(f"{name}.py", "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"python {name}.py" in done.stdout  # examples
    assert max(map(len, done.stdout.splitlines())) <= 100
    usage, *lines = done.stdout.splitlines()
    assert usage.startswith(f"usage: {name}.py [flags] [") and not lines[0]
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings[1] == "flags:" and headings[-1] == "rarely needed:"
    everyday = done.stdout.split("\nflags:")[1].split("\n\n")[0]
    assert "--arch" in everyday and "--device" in everyday
    assert "--debug" not in everyday and "--dist-addr" not in everyday
    assert everyday.count("\n") < 50  # about a screen


def test_the_seeds_spellings_all_work():
    flags = SCRIPTS["train"].flags
    parse = lambda name, *args: flags.parse(SCRIPTS[name].parser(), list(map(str, args)))  # noqa: E731
    for flag in ("-d", "--data", "--dataset-dir", "--data_dir"):
        assert parse("train", flag, "x").data == parse("test", flag, "x").data == "x"
    for flag in ("-a", "--arch", "--model-name"):
        for name in SCRIPTS:
            assert parse(name, flag, "resnet50").arch == "resnet50"
    for flag in ("-m", "--model", "--ckpt_path"):
        assert parse("test", flag, "x").model == parse("inference", flag, "x").model == "x"
    for flag in ("-b", "--batch-size"):
        assert parse("train", flag, 7).batch_size == parse("test", flag, 7).batch_size == 7
    for flag in ("-n", "--ngpus"):
        assert parse("train", flag, 2).ngpus == parse("test", flag, 2).ngpus == 2
    for flag in ("--save", "--save-dir"):
        assert parse("train", flag, "x").save == "x"
    for flag in ("--lr", "--learning-rate"):
        assert parse("train", flag, 0.3).lr == 0.3
    for flag in ("-c", "--config"):
        assert parse("train", flag, "x").config == "x"
    for flag in ("-i", "--image"):
        assert parse("inference", flag, "x").image == ["x"]
    for word in ("False", "false", "0"):
        topology = flags.topology(parse("train", "--distribute", word, "--ngpus", 8))
        assert (topology.ngpus, topology.nodes) == (1, 1)
    nodes = ("--dist-addr", "host", "--dist-port", 99, "--world-size", 2, "--rank", 1, "-n", 8)
    topology = flags.topology(parse("train", *nodes, "--dist-timeout", 2.5))
    where = {"ngpus": 8, "nodes": 2, "node": 1, "address": "host", "port": 99, "timeout": 2.5}
    assert {name: getattr(topology, name) for name in where} == where
    assert topology.settings["--lr"] == "not given" and topology.secret is None
    assert flags.topology(parse("test")) == Topology()


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("words", ["x --arch resnet50", "--arch resnet50 x", "--data x", "-d x"])
def test_the_data_may_be_named_by_its_place(name, words):
    script = SCRIPTS[name]
    assert script.flags.parse(script.parser(), words.split()).data == "x"


def test_data_given_twice(capsys):
    code, message = fails(capsys, "train", "x", "--data", "y")
    assert code == 2 and "the data is given twice, as x and as --data y" in message
    code, message = fails(capsys, "test", "x", "y")
    assert code == 2 and "unrecognized arguments: y" in message


@pytest.mark.parametrize(
    "words", ["a b --top-k 2", "--top-k 2 a b", "a --top-k 2 b", "a -i b --top-k 2", "-i a -i b"]
)
def test_images_may_be_named_by_their_place(monkeypatch, words):
    assert started(monkeypatch, "inference", "predict", *words.split()).images == ["a", "b"]


def test_a_home_in_a_flag_is_expanded(monkeypatch):
    """No shell expands the ~ of --save=~/out."""
    monkeypatch.setenv("HOME", "/home/someone")
    flags = SCRIPTS["train"].flags
    args = flags.parse(SCRIPTS["train"].parser(), ["--save=~/out", "--data=~/in", "--resume=x~"])
    assert (args.save, args.data, args.resume) == ("/home/someone/out", "/home/someone/in", "x~")
    args = flags.parse(SCRIPTS["test"].parser(), ["--report=~/page"])
    assert args.report == "/home/someone/page"


def test_defaults_are_the_seeds():
    script = SCRIPTS["train"]
    args = script.flags.parse(script.parser(), [])
    assert (args.data, args.save) == ("/data/datasets/imagenet", "/data/models")
    assert (args.arch, args.ngpus) == (None, 1)
    recipe = script.recipe_of(args)
    assert recipe.arch == "resnet18"
    assert (recipe.batch_size, recipe.optimizer.lr, recipe.epochs) == (32, 0.0125, 100)
    assert recipe.augment.jitter == 0
    for arch, jitter in [
        ("resnet50", 0.4),
        ("resnet34", 0),
        ("resnet50_fbaug_in1k", 0.4),  # a row is trained as its own recipe says
        ("resnet50_8xb32_in1k", 0),
    ]:
        args = script.flags.parse(script.parser(), ["--arch", arch])
        assert script.recipe_of(args).augment.jitter == jitter
    for arch in ("resnet20_cifar", "resnet18_cifar", "resnet20_cifar_30e"):
        args = script.flags.parse(script.parser(), ["--arch", arch])
        recipe = script.recipe_of(args)
        assert recipe.arch == arch.replace("_30e", "")
        assert recipe.model_copy(update={"arch": None}) == load_recipe(
            "resnet20_cifar_30e"
        ).model_copy(update={"arch": None})


def test_flags_replace_what_the_recipe_says():
    script = SCRIPTS["train"]
    flags = "-c resnet50_fbaug_in1k --epochs 9 -b 3 --lr 0.5 --momentum 0.8 --weight-decay 0.01"
    args = script.flags.parse(script.parser(), [*flags.split(), "--preprocess", "torchvision"])
    recipe = script.recipe_of(args)
    assert (recipe.epochs, recipe.batch_size) == (9, 3)
    assert recipe.schedule.milestones == pytest.approx((3, 6, 8))
    optimizer = recipe.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.5, 0.8, 0.01)
    assert (recipe.preprocess.order, recipe.preprocess.library) == ("RGB", "pillow")


def started(monkeypatch, name, job, *arguments):
    """What a script's flags make of the job, which is not done."""
    script, jobs = SCRIPTS[name], []
    monkeypatch.setattr(script, job, lambda config: jobs.append(config) or 0)
    assert script.main([str(argument) for argument in arguments]) == 0
    (config,) = jobs
    return config


@pytest.mark.parametrize(
    ("arguments", "arch", "weights"),
    [
        ("--arch resnet50", "resnet50", None),
        ("--arch resnet50 --pretrained", "resnet50", "resnet50_fbaug_in1k"),
        ("--arch resnet50 --pretrained resnet50_8xb32_in1k", "resnet50", "resnet50_8xb32_in1k"),
        ("--arch resnet50_8xb8_cub", "resnet50", None),
        ("--arch resnet50_8xb8_cub --pretrained", "resnet50", "resnet50_8xb8_cub"),
        ("--arch resnetv2_50 --pretrained", "resnetv2_50", "resnetv2_50"),
        ("--arch wide-resnet50_3rdparty_8xb32_in1k", "wide_resnet50_2", None),
    ],
)
def test_training_from_a_row(monkeypatch, arguments, arch, weights):
    config = started(monkeypatch, "train", "train", *arguments.split())
    assert config.arch == arch
    assert (config.weights and look_up(config.weights).row.name) == weights


def test_training_from_a_file_that_a_row_describes(monkeypatch, tmp_path):
    path = tmp_path / "file.pkl"
    mge.save(get_model("resnet20_cifar").state_dict(), str(path))
    flags = ("--arch", "resnet20_cifar_30e", "--pretrained", path)
    config = started(monkeypatch, "train", "train", *flags)
    source = look_up(config.weights)
    assert config.arch == "resnet20_cifar" and source.config.source == str(path)
    assert source.config.preprocess_by == "row" and config.recipe.preprocess.order == "RGB"


@pytest.mark.parametrize(("name", "job"), [("test", "test"), ("inference", "predict")])
def test_which_network_the_flags_mean(monkeypatch, name, job):
    assert started(monkeypatch, name, job).network == NetworkConfig()
    flags = ("--arch", "resnet50_8xb8_cub", "--model", "x", "--num-classes", 200)
    config = started(monkeypatch, name, job, *flags, "--preprocess", "{crop: 32, library: pillow}")
    preprocess = {"crop": 32, "library": "pillow"}
    assert config.network == NetworkConfig("resnet50_8xb8_cub", "x", 200, preprocess)
    preset = started(monkeypatch, name, job, "--preprocess", "torchvision").network.preprocess
    assert preset["order"] == "RGB" and "resize" not in preset and "crop" not in preset


def test_the_class_map_goes_along(monkeypatch):
    assert started(monkeypatch, "test", "test", "--class-map", "map.yaml").class_map == "map.yaml"
    assert started(monkeypatch, "test", "test").class_map is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--archh", "resnet18"], "unknown flag --archh; did you mean --arch?"),
        (["train", "--arch", "resnet19"], "did you mean resnet18"),
        (["train", "-c", "resnet50_fbag_in1k"], "did you mean resnet50_fbaug_in1k"),
        (["train", "--lr", "-1"], "'-1' is not a number above 0"),
        (["train", "--lr", "nan"], "'nan' is not a number above 0"),
        (["train", "--epochs", "0"], "'0' is not an integer of at least 1"),
        (["train", "--momentum", "2"], "optimizer.momentum"),
        (["train", "--seed", "-3"], "'-3' is not an integer of at least 0"),
        (["train", "--device", "tpu"], "--device"),
        (["train", "--distribute", "maybe"], "'maybe' is neither true nor false"),
        (["train", "--dist-timeout", "0"], "'0' is not a number above 0"),
        (["test", "--rank", "1"], "--rank 1 needs --world-size 2 or more"),
        (["test", "--preprocess", "{ordr: RGB}"], "unknown key 'ordr'"),
        (["test", "--preprocess", "nowhere"], "neither one of megengine"),
        (["test", "--preprocess", "{library: pil}"], "library is 'pil', not one of"),
        (["test", "--class-map", "no/such.yaml"], "--class-map no/such.yaml: cannot be read"),
        (["inference", "--arch", "resnet32_cifar"], "no published weights"),
        (["inference", "--arch", "resnet50_8xb32"], "did you mean resnet50_8xb32_in1k"),
        (["train", "--arch", "resnet50_8xb31_in1k"], "did you mean resnet50_8xb32_in1k"),
    ],
)
def test_wrong_use_exits_with_2(capsys, arguments, message):
    code, err = fails(capsys, *arguments)
    assert code == 2
    assert message in err


def test_what_is_missing_exits_with_1(capsys, tiny_images, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    weights = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=10).state_dict(), str(weights))
    network = ("--arch", "resnet20_cifar", "--model", weights)
    cases = [
        (("train", "--data", tmp_path / "nowhere"), "nowhere: no such folder"),
        (("train", "--data", tmp_path), "expected train images in a folder per class"),
        (
            ("train", "--data", tiny_images, "-b", 8, "--save", "/proc/none"),
            "choose another with --save",
        ),
        (("train", "--data", tiny_images, "--batch-size", "25"), "lower --batch-size"),
        (("test", "--data", tiny_images, *network), "3 class folders, but the weights have 10"),
        (("test", "--data", tiny_images, "--model", tmp_path / "no.pkl"), "no.pkl"),
        (("test", "--data", tiny_images, "--arch", "resnet18", "--model", weights), "does not fit"),
        (("inference", "--image", text, *network), "text.jpg: not an image"),
        (("inference", "--image", tmp_path / "no.jpg", *network), "no.jpg: no such image"),
    ]
    for arguments, message in cases:
        code, err = fails(capsys, *arguments)
        assert code == 1, err
        assert message in err


NASTY = "\033[2Jred\nok"  # clears a terminal, and begins a line of its own


def test_names_from_outside_cannot_steer_the_terminal(capsys, tmp_path):
    """In errors, which come from folders and files, and in what is remarked on the way."""
    folder = tmp_path / "data" / "val" / NASTY
    folder.mkdir(parents=True)
    (folder / "0.png").touch()
    weights = tmp_path / f"{NASTY}.pkl"
    mge.save(resnet20_cifar(num_classes=10).state_dict(), str(weights))
    data = ("--data", tmp_path / "data", "--arch", "resnet20_cifar", "--model", weights)
    code, err = fails(capsys, "test", *data, "--class-map", tmp_path / NASTY)
    assert (code, err.count("\n")) == (2, 1)
    assert r"\x1b[2Jred\nok: cannot be read" in err and "\033" not in err
    (tmp_path / "map.json").write_text('{"other": 1}')
    code, err = fails(
        capsys, "test", *data, "--class-map", tmp_path / "map.json", "--preprocess", "mmpretrain"
    )
    assert r"class folder \x1b[2Jred\nok is not in" in err and "\033" not in err


def test_what_is_remarked_cannot_steer_the_terminal(script, tmp_path):
    weights = tmp_path / f"{NASTY}.pkl"
    mge.save(resnet20_cifar(num_classes=10).state_dict(), str(weights))
    done = script("inference.py", "--arch", "resnet20_cifar", "--model", weights)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert r"\x1b[2Jred\nok.pkl: does not say how" in line and "\033" not in line


def test_an_error_of_the_system_without_a_reason(capsys, monkeypatch):
    script = SCRIPTS["inference"]

    def fail(config):
        raise OSError("a reason of another kind")

    monkeypatch.setattr(script, "predict", fail)
    assert script.main([]) == 1
    assert capsys.readouterr().err == "inference.py: error: output: a reason of another kind\n"


def test_debug_shows_the_traceback(capsys, tmp_path):
    assert SCRIPTS["train"].main(["--data", str(tmp_path / "nowhere"), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_megengine_state_dict_through_the_command_line(script, tmp_path):
    """``megengine.save(model.state_dict(), ...)``, then inference.py, on the default picture."""
    weights = tmp_path / "resnet18.pkl"
    mge.save(resnet18().state_dict(), str(weights))
    command = ("inference.py", "--arch", "resnet18", "--model", weights, "--json")
    told = script(*command)
    assert told.returncode == 0
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"inference.py: {weights}: does not say how its images are prepared")
    done = script(*command, "--preprocess", "megengine")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 0 and line.endswith("assuming ImageNet's 1,000 classes")
    assert done.stdout == told.stdout  # which is what was assumed
    answer = json.loads(done.stdout)
    assert len(answer["top"]) == 5
    assert Path(answer["image"]) == ROOT / "official" / "assets" / "cat.jpg"


def test_what_the_flags_of_inference_ask_for(monkeypatch):
    default = started(monkeypatch, "inference", "predict")
    assert [Path(path).name for path in default.images] == ["cat.jpg"]
    assert not any(
        (default.csv, default.jsonl, default.features, default.save_image, default.saliency)
    )
    assert (default.batch_size, default.top_k, default.json, default.tta) == (32, 5, False, False)
    flags = "-i a b --image c -b 7 -j 0 -p 3 --top-k 2 --json --csv d --jsonl e --save-image f"
    flags += " --features g --saliency h --tta --device cpu"
    config = started(monkeypatch, "inference", "predict", *flags.split())
    assert config.images == ["a", "b", "c"]
    assert (config.batch_size, config.workers, config.print_freq, config.top_k) == (7, 0, 3, 2)
    assert (config.json, config.tta, config.device) == (True, True, "cpu")
    files = (config.csv, config.jsonl, config.save_image, config.features, config.saliency)
    assert files == ("d", "e", "f", "g", "h")


def test_what_is_tested_besides(monkeypatch):
    config = started(monkeypatch, "test", "test")
    assert (config.tta, config.calibrate) == (False, False)
    config = started(monkeypatch, "test", "test", "--tta")
    assert (config.tta, config.calibrate) == (True, False)
    config = started(monkeypatch, "test", "test", "--calibrate")
    assert (config.tta, config.calibrate) == (False, True)


def test_a_corrupt_image_among_others(script, tiny_images, tmp_path):
    """Named on stderr; the others go on; the exit code is 1."""
    weights = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=3).state_dict(), str(weights))
    broken, rows = tmp_path / f"{NASTY}.png", tmp_path / "rows.csv"
    broken.write_text("no picture")
    command = ["inference.py", "-i", broken, tiny_images / "val", "--csv", rows]
    network = ("--arch", "resnet20_cifar", "--model", weights, "--preprocess", "mmpretrain")
    done = script(*command, *network)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["Predict 16/16", f"predictions: {rows}"]
    first, second = done.stderr.splitlines()
    assert first.startswith("inference.py: ") and first.endswith("GIF); fetch the file again")
    assert r"red\nok.png: not an image of a format that is read (JPEG, PNG, " in first
    assert second == "inference.py: 1 of 16 images could not be used; they are left out"
    assert len(rows.read_text().splitlines()) == 1 + 15


def test_a_run_with_its_report(tiny_images, tiny_recipe, tmp_path, capsys, monkeypatch):
    """The page of test.py on the best network, with the run's curves, epochs, recipe and card."""
    flags = [
        "--data",
        tiny_images,
        "-c",
        tiny_recipe,
        "--arch",
        "resnet20_cifar",
        "--save",
        tmp_path,
    ]
    flags += ["--device", "cpu", "--report", "--lang", "zh"]
    assert SCRIPTS["train"].main(list(map(str, flags))) == 0
    folder = tmp_path / "resnet20_cifar"
    page = (folder / "report" / "report.html").read_text("utf-8")
    assert f"report: {folder / 'report' / 'report.html'}" in capsys.readouterr().out
    for words in (
        "训练过程",
        "训练曲线",
        "共 4 轮、12 步",
        "batch_size: 8",
        "resnet20_cifar for 3 classes",
    ):
        assert words in page
    assert str(tmp_path) not in page and str(tiny_images) not in page
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(row["val_top1"] for row in rows if row["event"] == "epoch")
    assert f"<strong>{best:.2f} %</strong>" in page


def test_which_trackers_the_flags_mean(monkeypatch):
    names = lambda *words: started(monkeypatch, "train", "train", *words).trackers  # noqa: E731
    assert names() == ()
    assert names("--tensorboard") == names("--log", "tensorboard") == ("tensorboard",)
    assert names("--log", "wandb", "photos", "--log", "mlflow") == ("wandb", "mlflow")
    assert names("--log", "swanlab", "--log", "swanlab", "--tensorboard") == (
        *("swanlab", "tensorboard"),
    )
