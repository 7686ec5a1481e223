"""Whoever loads networks from Python gets them fast on a CPU."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import megengine as mge
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification import accelerate, get_model, inference_model
from official.vision.classification.data.calibrating import IMAGES
from official.vision.classification.data.normalize import Normalize
from official.vision.classification.engine.scoring import Scorer
from official.vision.classification.errors import UsageError
from official.vision.classification.ops.accelerate import CompiledOps
from official.vision.classification.ops.build import processor_flags
from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.prediction import inference
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.testing.tester import TestConfig as Config
from official.vision.classification.testing.tester import test as run_test
from official.vision.classification.zoo.trained import NetworkConfig
from tests.kernels import kernels_or_skip

needs_vnni = pytest.mark.skipif(
    "avx512_vnni" not in processor_flags(), reason="this CPU has no 8-bit instructions"
)


@pytest.fixture(autouse=True)
def _kernels():
    kernels_or_skip()


def images(count=2, size=32):
    return np.random.default_rng(count).normal(size=(count, 3, size, size)).astype(np.float32)


def elsewhere(call, *args):
    """What a thread that is not the main one gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args).result()


def test_a_network_that_is_compiled_when_it_is_loaded():
    plain = get_model("resnet20_cifar", pretrained=True)
    model = get_model("resnet20_cifar", pretrained=True, compiled=True)
    assert type(plain.ops) is PlainOps and plain.training
    assert type(model.ops) is CompiledOps and not model.training
    plain.eval()
    for size in (32, 45):
        x = images(3, size)
        expected = plain(mge.Tensor(x)).numpy()
        for found in (elsewhere(model, x), model(x), model(mge.Tensor(x)).numpy()):
            assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    with pytest.raises(ValueError, match="^precision 'int4': expected one of fp32, bf16, int8"):
        get_model("resnet20_cifar", compiled="int4")


def test_without_kernels_it_is_megengines(monkeypatch, caplog):
    monkeypatch.setenv("RESNET_KERNELS", "megengine")
    model = get_model("resnet20_cifar", compiled=True)
    assert type(model.ops) is PlainOps and not model.training
    assert "the network is not compiled: RESNET_KERNELS is megengine" in caplog.text
    with pytest.raises(ValueError, match="precision bf16 needs the native kernels"):
        get_model("resnet20_cifar", compiled="bf16")


def test_images_are_classified_from_any_thread(monkeypatch):
    """By the plan, of a plain network in any mode, which stays as it is."""
    model = get_model("resnet20_cifar", pretrained=True)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    told = inference_model(model, image)
    assert elsewhere(inference_model, model, image) == told
    assert model.training and type(model.ops) is PlainOps
    compiled = get_model("resnet20_cifar", pretrained=True, compiled=True)
    assert elsewhere(inference_model, compiled, image) == told
    monkeypatch.setattr(inference, "_plans", lambda: None)
    slow = inference_model(model, image)
    assert [guess["pred_label"] for guess in slow["top_k"]] == [
        guess["pred_label"] for guess in told["top_k"]
    ]
    assert slow["pred_score"] == pytest.approx(told["pred_score"], rel=1e-4)


def test_features_and_maps_are_compiled():
    plain = get_model("resnet20_cifar", pretrained=True)
    plain.eval()
    model = get_model("resnet20_cifar", pretrained=True, compiled=True)
    preprocess = Preprocess("RGB", (128,) * 3, (64,) * 3, None, None)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    expected = Scorer(plain, Normalize(preprocess, plain.ops), with_maps=True)(pixels)
    score = Scorer(model, Normalize(preprocess, model.ops), with_maps=True)
    found = elsewhere(score, pixels)
    for name in ("logits", "features", "maps"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()


def test_training_of_a_network_that_was_made_elsewhere():
    """One call moves it to the device whose kernels are ours; gradients are MegEngine's."""
    x, labels = images(4), np.arange(4, dtype=np.int32)

    def gradients(model):
        with GradManager().attach(model.parameters()) as manager:
            loss = mge.functional.loss.cross_entropy(model(mge.Tensor(x)), mge.Tensor(labels))
            manager.backward(loss)
        return [each.grad.numpy() for each in model.parameters()]

    expected = gradients(get_model("resnet20_cifar", pretrained=True))
    model = get_model("resnet20_cifar", pretrained=True)
    for each in (*model.parameters(), *model.buffers()):
        each._reset(each.to("cpu0"))
    assert accelerate(model) is model
    assert type(model.ops) is NativeOps and model.training
    for found, wanted in zip(gradients(model), expected):
        assert np.abs(found - wanted).max() < 1e-2 * max(1e-3, np.abs(wanted).max())


@pytest.fixture()
def network(tmp_path):
    """Of the classes of ``tiny_images``."""
    path = tmp_path / "weights.pkl"
    mge.random.seed(3)
    mge.save(get_model("resnet20_cifar", num_classes=3).state_dict(), str(path))
    whole = {"mean": [128] * 3, "std": [64] * 3, "resize": None, "crop": None}
    return NetworkConfig("resnet20_cifar", str(path), preprocess=whole)


@needs_vnni
def test_int8_tells_both_counts(network, tiny_images, tmp_path, capsys, caplog):
    results = {}
    for precision in ("fp32", "int8"):
        json_path = tmp_path / f"{precision}.json"
        assert (
            run_test(
                Config(
                    str(tiny_images),
                    network,
                    device="cpu",
                    precision=precision,
                    json=str(json_path),
                )
            )
            == 0
        )
        results[precision] = json.loads(json_path.read_text())
    before, after = results["fp32"], results["int8"]
    assert after["fp32"]["top1_correct"] == before["top1_correct"]
    assert f"in float32 {before['top1']:.3f}, {before['top1_correct']} of 15; in int8" in (
        capsys.readouterr().out
    )
    assert "calibrated on 15 images of those given; --calibration DIR names others" in caplog.text
    assert 0 < abs(after["loss"] - before["loss"]) < 0.1  # it is another arithmetic


@needs_vnni
def test_folders_of_calibration(network, tiny_images, tmp_path, caplog):
    folder = tmp_path / "many"
    for number in range(IMAGES + 5):
        (folder / str(number % 3)).mkdir(parents=True, exist_ok=True)
        picture = np.full((32, 32, 3), number, np.uint8)
        cv2.imwrite(str(folder / str(number % 3) / f"{number:03d}.png"), picture)
    config = Config(str(tiny_images), network, device="cpu")
    (tmp_path / "empty").mkdir()
    for path, reason in (("nowhere", "no such folder"), ("empty", "no images in it")):
        where = str(tmp_path / path)
        with pytest.raises(UsageError, match=f"--calibration .*{path}: {reason}"):
            run_test(replace(config, precision="int8", calibration=where))
    with pytest.raises(UsageError, match="--calibration .*many: is for --precision int8"):
        run_test(replace(config, calibration=str(folder)))
    assert "calibrated" not in caplog.text
    assert run_test(replace(config, precision="int8", calibration=str(folder))) == 0
    assert f"calibrated on {IMAGES} images of {folder}" in caplog.text
