"""What a network's weights are is one truth: every script knows of them what the others know.

Journeys through the scripts, from a weight file to the images that training and testing see.
"""

import json
import logging

import cv2
import megengine
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from official.vision.classification.data.augment import TrainTransform
from official.vision.classification.data.folder import load_split
from official.vision.classification.data.transforms import EvalTransform, resize
from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.preprocess import PRESETS
from official.vision.classification.zoo import get_model, load_weights
from official.vision.classification.zoo.rows import BY_NAME
from official.vision.classification.zoo.trained import NetworkConfig, look_up
from tests.scripts import load_script

STILL = ("--lr", "1e-12", "--epochs", "1", "-b", "8", "--device", "cpu", "-j", "0")  # hardly moves


@pytest.fixture()
def run(capsys, caplog):
    """Runs a script in this process: its exit code, and what it says."""

    def run(name, *arguments):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            code = load_script(name).main([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err + "\n".join(caplog.messages)

    return run


@pytest.fixture()
def colours(tmp_path, tiny_images):
    """A network that tells the three colours of ``tiny_images`` apart if they come as RGB.

    Its first layer passes the channels on, in the order RGB, and its classifier reads them.
    """
    model = get_model("resnet20_cifar", num_classes=3)
    state = {name: np.zeros_like(value) for name, value in model.state_dict().items()}
    for name in state:
        if name.endswith(("running_var", "bn1.weight")):
            state[name][:] = 1
    for channel in range(3):
        state["conv1.weight"][channel, channel, 1, 1] = 1
    state["bn1.bias"][:] = 3  # the normalised channels stay above zero
    for place, channel in enumerate((2, 1, 0)):  # blue, green, red
        state["fc.weight"][place, _last(state) + channel] = 1
    return state


def _last(state):
    """Where the first channels are after the shortcuts, which pad with zeros on both sides."""
    return (state["fc.weight"].shape[1] - state["conv1.weight"].shape[0]) // 2


def described(path, state, **description):
    tensors = {name: value.copy() for name, value in state.items()}
    save_file(tensors, str(path), {"resnet": json.dumps(description)} if description else None)
    return path


def top1(run, *arguments):
    """What test.py counts."""
    code, out, _ = run("test.py", "--device", "cpu", "-j", "0", *arguments)
    assert code == 0
    return float(out.rsplit("Acc@1 ", 1)[1].split(",")[0])


def validated(folder):
    """What training counts, and the recipe that it used."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows[-1]["val_top1"], load_recipe(str(folder / "recipe.yaml"))


SMALL = {"resize": 16, "crop": 16}


# A1: training prepares images as the weights need it


def test_training_sees_the_images_that_testing_sees(run, colours, tmp_path, tiny_images):
    preprocess = PRESETS["torchvision"].override(SMALL).to_dict()
    classes = ["blue", "green", "red"]
    path = described(
        *(tmp_path / "rgb.safetensors", colours),
        arch="resnet20_cifar",
        classes=classes,
        preprocess=preprocess,
    )
    assert top1(run, "--data", tiny_images, "--model", path) == 100
    code, out, said = run(
        *("train.py", "--data", tiny_images, "--pretrained", path, "--save", tmp_path / "out"),
        *STILL,
    )
    assert code == 0 and "its 3 classes are kept" in out and said == ""
    folder = tmp_path / "out" / "resnet20_cifar"
    accuracy, recipe = validated(folder)
    assert accuracy == 100 and recipe.preprocess.to_dict() == preprocess
    assert load_weights(folder / "best.safetensors").preprocess.to_dict() == preprocess
    assert top1(run, "--data", tiny_images, "--model", folder / "best.safetensors") == 100
    # The same with the channels exchanged by a flag is another network, and what it was told.
    flags = ("--preprocess", "{order: BGR}", "--save", tmp_path / "exchanged")
    code, *_ = run("train.py", "--data", tiny_images, "--pretrained", path, *flags, *STILL)
    accuracy, recipe = validated(tmp_path / "exchanged" / "resnet20_cifar")
    assert code == 0 and accuracy < 50 and recipe.preprocess.order == "BGR"


@pytest.fixture()
def dry(run, monkeypatch):
    """What train.py would do: its configuration, and what it remarks."""

    def dry(*arguments):
        module, found = load_script("train.py"), []
        monkeypatch.setattr(module, "dry_run", lambda config: found.append(config) or 0)
        monkeypatch.setattr("tests.test_one_truth.load_script", lambda name: module)
        code, _, said = run("train.py", *arguments, "--dry-run")
        assert code == 0, said
        return found[0], said

    return dry


@pytest.mark.parametrize(
    ("flags", "row"),
    [
        ("-c resnet50_8xb32_in1k --pretrained", "resnet50_8xb32_in1k"),
        ("--arch resnet50_8xb32_in1k --pretrained", "resnet50_8xb32_in1k"),
        ("--arch resnet50 --pretrained resnet50_8xb32_in1k", "resnet50_8xb32_in1k"),
        ("--arch resnet50 --pretrained", "resnet50_fbaug_in1k"),
        ("-c resnet18_naiveaug_in1k --pretrained", "resnet18_naiveaug_in1k"),
        ("-c resnet50_8xb16_cifar100 --pretrained", "resnet50_8xb16_cifar100"),
        ("-c resnet50_8xb32_in1k --arch resnet101 --pretrained", "resnet101_fbaug_in1k"),
        ("-c resnet50_fbaug_in1k --arch resnet50_8xb32_in1k --pretrained", "resnet50_8xb32_in1k"),
    ],
)
def test_a_rows_weights_get_the_images_that_the_row_states(dry, flags, row):
    config, said = dry(*flags.split())
    source = look_up(config.weights)
    assert (source.row.name, config.arch) == (row, BY_NAME[row].arch)
    wanted = BY_NAME[row].preprocess
    if config.recipe.preprocess.order == wanted.order:
        assert config.recipe.preprocess.mean == wanted.mean and said == ""
    else:  # a recipe that was named states other colours, and one line says so
        assert "--arch" in flags and "-c" in flags and f"instead of {wanted.order}" in said
    assert (config.recipe.preprocess.resize, config.recipe.preprocess.crop) == (
        *(wanted.resize, wanted.crop),
    )


@pytest.mark.parametrize(
    ("rename", "suffix", "preset"),
    [
        ("", ".safetensors", "torchvision"),
        ("backbone.", ".safetensors", "mmpretrain"),
        ("", ".pkl", "megengine"),
    ],
)
def test_files_that_do_not_say_are_taken_as_by_testing(dry, tmp_path, rename, suffix, preset):
    state = get_model("resnet20_cifar").state_dict()
    state = {rename + name.replace("fc.", "fc."): value for name, value in state.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pkl":
        megengine.save(state, str(path))
    else:
        described(path, state)
    config, said = dry("--arch", "resnet20_cifar", "--pretrained", path)
    used, wanted = config.recipe.preprocess, PRESETS[preset]
    assert (used.order, used.mean, used.library) == (wanted.order, wanted.mean, wanted.library)
    assert len(said.splitlines()) == 1 and f"assuming {wanted.order}" in said
    tested = look_up(NetworkConfig("resnet20_cifar", str(path))).config.preprocess
    assert used == tested


def test_a_recipe_that_states_other_colours_is_followed_and_said(dry, tmp_path):
    path = tmp_path / "rgb.safetensors"
    rgb = PRESETS["torchvision"].override({"resize": 32, "crop": 32})
    described(
        *(path, get_model("resnet20_cifar").state_dict()),
        arch="resnet20_cifar",
        preprocess=rgb.to_dict(),
    )
    recipe = tmp_path / "own.yaml"
    recipe.write_text("epochs: 1\nbatch_size: 8\noptimizer: {lr: 1}\npreprocess: {order: BGR}\n")
    config, said = dry("-c", recipe, "--arch", "resnet20_cifar", "--pretrained", path)
    assert config.recipe.preprocess == rgb.override(
        {"order": "BGR", "mean": rgb.mean, "std": rgb.std}
    )
    assert "order BGR instead of RGB" in said and "--preprocess" in said
    recipe.write_text("epochs: 1\nbatch_size: 8\noptimizer: {lr: 1}\n")
    config, said = dry("-c", recipe, "--arch", "resnet20_cifar", "--pretrained", path)
    assert config.recipe.preprocess == rgb and said == ""


# A3, A4: names decide, and not numbers


def test_a_classifier_of_the_same_classes_is_kept_in_their_new_order(
    run, colours, tmp_path, tiny_images
):
    state = dict(colours)
    order = [2, 0, 1]  # red, blue, green
    state["fc.weight"] = state["fc.weight"][order]
    preprocess = PRESETS["torchvision"].override(SMALL).to_dict()
    path = described(
        *(tmp_path / "w.safetensors", state),
        arch="resnet20_cifar",
        classes=["red", "blue", "green"],
        preprocess=preprocess,
    )
    assert top1(run, "--data", tiny_images, "--model", path) == 100
    flags = ("--data", tiny_images, "--pretrained", path, "--save", tmp_path / "out")
    code, out, _ = run("train.py", *flags, *STILL)
    assert code == 0 and "its 3 classes are kept, in the order of this data" in out
    assert validated(tmp_path / "out" / "resnet20_cifar")[0] == 100


@pytest.mark.parametrize("classes", [["blue", "green", "yellow"], None])
def test_a_classifier_of_other_classes_starts_anew(run, colours, tmp_path, tiny_images, classes):
    path = described(
        *(tmp_path / "w.safetensors", colours),
        **{"arch": "resnet20_cifar", **({"classes": classes} if classes else {})},
    )
    flags = ("--data", tiny_images, "--pretrained", path, "--save", tmp_path / "out")
    code, out, _ = run("train.py", *flags, *STILL)
    why = "has other classes" if classes else "names no classes"
    assert code == 0 and f"which {why}: the classifier starts anew for 3 classes" in out
    tuned = load_weights(tmp_path / "out" / "resnet20_cifar" / "best.safetensors")
    assert not np.allclose(tuned.tensors["fc.weight"], colours["fc.weight"])
    assert np.allclose(tuned.tensors["conv1.weight"], colours["conv1.weight"], atol=1e-8)


def test_sorted_folders_are_said_to_be_taken_for_classes_without_names(
    run, colours, tmp_path, tiny_images
):
    path = described(tmp_path / "w.safetensors", colours)
    flags = ("--arch", "resnet20_cifar", "--model", path, "--device", "cpu", "-j", "0")
    code, out, said = run("test.py", "--data", tiny_images, *flags)
    assert code == 0 and "Acc@1 100.000" in out
    (line,) = [line for line in said.splitlines() if "does not name its classes" in line]
    assert "sorted order" in line and "--class-map" in line


# A5: what a run would refuse, a dry run refuses


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--pretrained {0}/nofile.pth", "nofile.pth: no such file"),
        ("--pretrained resnet50_fbaug_in1", "neither a file nor a row of resnet20_cifar"),
        ("--pretrained resnet50_fbaug_in1k", "are weights of resnet50, not of resnet20_cifar"),
        ("--pretrained {0}/other.safetensors", "does not fit resnet20_cifar"),
        ("--pretrained {0}/text.pth", "text.pth: is text"),
        ("--resume {0}/nofile", "nofile: no such file"),
        ("--resume {0}/other.safetensors", "no checkpoint"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(run, tmp_path, tiny_images, flags, message):
    described(tmp_path / "other.safetensors", get_model("resnet32_cifar").state_dict())
    (tmp_path / "text.pth").write_text("version https://example.org/spec/v1\n")
    told = []
    for more in (["--dry-run"], []):
        code, _, said = run(
            *("train.py", "--data", tiny_images, "--arch", "resnet20_cifar", "--save"),
            *(tmp_path / "out", *flags.format(tmp_path).split(), *more, *STILL),
        )
        assert code in (1, 2) and message in said and "Traceback" not in said
        told.append([line for line in said.splitlines() if "error" in line])
    assert told[0] == told[1]
    assert not (tmp_path / "out" / "resnet20_cifar" / "checkpoint.safetensors").exists()


# A6: folders that are called 0, 1, … are these numbers


@pytest.mark.parametrize("digits", [1, 3])
def test_folders_that_are_numbers_are_the_logits_numbers(run, tmp_path, tiny_images, digits):
    """In the order of letters, 10 comes before 2."""
    megengine.random.seed(1)
    state = get_model("resnet20_cifar", num_classes=12).state_dict()
    state["fc.weight"] = np.zeros_like(state["fc.weight"])
    state["fc.bias"] = np.arange(12, dtype=np.float32)  # says 11 to every image
    path = described(tmp_path / "w.safetensors", state)
    image = next((tiny_images / "val").rglob("*.png"))
    for number in range(12):
        folder = tmp_path / "data" / "val" / f"{number:0{digits}}"
        folder.mkdir(parents=True)
        for copy in range(1 + 8 * (number == 11)):
            (folder / f"{copy}.png").symlink_to(image)
    expected = pytest.approx(100 * 9 / 20, abs=1e-3)
    flags = ("--data", tmp_path / "data", "--arch", "resnet20_cifar", "--model", path)
    assert top1(run, *flags) == expected
    if digits == 1:
        classes = load_split(tmp_path / "data", "val").classes
        assert classes == tuple(map(str, range(12)))  # also where no weights are asked


# A7: what a file cannot hold is said


def test_a_pkl_cannot_hold_a_preprocessing(run, tmp_path, colours):
    path = described(tmp_path / "w.safetensors", colours)
    flags = (path, "--arch", "resnet20_cifar", "--preprocess", "torchvision", "--out")
    code, _, said = run("tools/convert_weights.py", *flags, tmp_path / "x.pkl")
    assert code == 0 and "--preprocess" in said and "does not keep it" in said
    code, _, said = run("tools/convert_weights.py", *flags, tmp_path / "x.safetensors")
    assert code == 0 and said == ""


# A8: training sees images at the size at which they are tested


@pytest.mark.parametrize("crop", ["padded", "random"])
@pytest.mark.parametrize("name", ["shapes", "resnet20_cifar_30e", "resnet18_8xb16_cifar10"])
def test_large_images_are_trained_on_at_the_size_they_are_tested_at(name, crop):
    recipe = load_recipe(name)
    augment = recipe.augment.model_copy(
        update={"crop": crop, "padding": 0, "flip": False, "jitter": 0.0, "erasing": 0.0}
    )
    preprocess = recipe.preprocess.override({"resize": recipe.preprocess.resize or 32})
    image = np.random.default_rng(0).integers(0, 256, (160, 240, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 9)
    transform = TrainTransform(recipe.train_size, augment, preprocess)
    whole = resize(image, preprocess)  # what testing takes the centre of
    seen = transform(image, np.random.default_rng(1))
    places = [
        left
        for left in range(whole.shape[1] - seen.shape[1] + 1)
        if np.array_equal(whole[:, left : left + seen.shape[1]], seen)
    ]
    assert len(places) == 1
    assert EvalTransform(preprocess)(image).shape == seen.shape


# A10: usual names of splits


@pytest.mark.parametrize("name", ["validation", "valid", "Val", "val"])
def test_the_validation_images_are_found_under_their_usual_names(run, tmp_path, tiny_images, name):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train").symlink_to(tiny_images / "train")
    (data / name).symlink_to(tiny_images / "val")
    (data / "test").symlink_to(tiny_images / "train")  # 24 images, not 15
    code, out, _ = run(
        *("train.py", "--data", data, "--arch", "resnet20_cifar", "--save", tmp_path / "out"),
        *("--set", "preprocess.resize=16", "--set", "preprocess.crop=16", *STILL),
    )
    assert code == 0 and f"15 validation images in {data / name}" in out
    assert f"24 test images in {data / 'test'}, which decide nothing" in out


def test_test_images_do_not_decide(run, tmp_path, tiny_images):
    data = tmp_path / "data"
    data.mkdir()
    for split, source in (("train", "train"), ("test", "val"), ("extra", "val")):
        (data / split).symlink_to(tiny_images / source)
    (data / "notes").mkdir()
    code, out, _ = run(
        *("train.py", "--data", data, "--arch", "resnet20_cifar", "--save", tmp_path / "out"),
        *("--set", "preprocess.resize=16", "--set", "preprocess.crop=16", "--dry-run", *STILL),
    )
    assert code == 0 and f"15 test images in {data / 'test'}, which decide nothing" in out
    assert "6 validation images held out of them, 0.2 of each class" in out
    assert "not used: extra\n" in out
    assert yaml.safe_load(out.partition("data: ")[0])["preprocess"]["crop"] == 16
