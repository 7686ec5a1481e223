"""Resizing as Pillow does it: equal to the bit to Pillow's, or left to it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from official.vision.classification.data import resample, transforms
from official.vision.classification.data.augment import Augment, TrainTransform
from official.vision.classification.data.folder import load_folder
from official.vision.classification.data.loader import Loader
from official.vision.classification.data.resample import Resampler
from official.vision.classification.data.sampler import eval_batches
from official.vision.classification.data.transforms import EvalTransform, scaled
from official.vision.classification.ops.build import KernelsUnavailable
from official.vision.classification.preprocess import Preprocess

METHODS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture(scope="module")
def resampler():
    if not shutil.which("g++") or " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no compiler, or no AVX2")
    return Resampler()


@pytest.fixture
def fresh(monkeypatch):
    """As in a new process, before and after the test."""
    monkeypatch.setattr(resample, "_prepared", None)
    resample.prepare.cache_clear()
    yield
    resample.prepare.cache_clear()


def by_pillow(image, shape, interpolation):
    return np.asarray(Image.fromarray(image).resize(shape, METHODS[interpolation]))


def noise(rng, height, width, of_extremes=False):
    """Of black and white bicubic weights make values below 0 and above 255."""
    if of_extremes:
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("interpolation", METHODS)
@pytest.mark.parametrize("of_extremes", [False, True])
def test_bytes_are_pillows(resampler, interpolation, of_extremes):
    rng = np.random.default_rng(0)
    left = 0
    for number in range(250):
        height, width, new_height, new_width = map(int, rng.integers(1, 260, 4))
        if number % 5 == 0:
            new_width = width
        if number % 7 == 0:
            new_height = height
        image = noise(rng, height, width, of_extremes)
        shape = (new_width, new_height)
        found = resampler(image, shape, interpolation)
        if found is None:
            left += 1
            continue
        np.testing.assert_array_equal(found, by_pillow(image, shape, interpolation))
    assert left < 20


@pytest.mark.parametrize("interpolation", METHODS)
@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [(3000, 4000, (341, 256)), (7, 5000, (300, 3)), (900, 10, (10, 900)), (1, 1, (224, 224))],
)
def test_large_small_and_long_images(resampler, interpolation, height, width, shape):
    image = noise(np.random.default_rng(1), height, width)
    expected = by_pillow(image, shape, interpolation)
    np.testing.assert_array_equal(resampler(image, shape, interpolation), expected)


def test_a_part_of_an_image(resampler):
    """Rows lie apart, and upside down."""
    image = noise(np.random.default_rng(2), 90, 120)
    for part in (image[10:70, 5:100], image[::-1], image[::2]):
        expected = by_pillow(np.ascontiguousarray(part), (64, 48), "bilinear")
        np.testing.assert_array_equal(resampler(part, (64, 48), "bilinear"), expected)


def test_what_is_left_to_pillow(resampler):
    image = noise(np.random.default_rng(3), 60, 80)
    assert resampler(image, (40, 30), "nearest") is None
    assert resampler(image[:, ::2], (40, 30), "bilinear") is None
    assert resampler(image.transpose(1, 0, 2), (40, 30), "bilinear") is None
    strip = noise(np.random.default_rng(3), 303, 3)  # Pillow: the other direction first
    assert resampler(strip, (50, 100), "bilinear") is None
    assert resampler(strip[:300], (50, 100), "bilinear") is not None


def test_another_pillow_is_noticed(resampler, monkeypatch):
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, shape, method: resize(self, shape, 4 - method)
    )
    with pytest.raises(KernelsUnavailable, match="whose bytes are others"):
        Resampler()


def test_nothing_is_compiled_for_one_image(fresh, monkeypatch):
    monkeypatch.setattr(resample, "native_library", lambda: pytest.fail("it was"))
    image = noise(np.random.default_rng(4), 50, 60)
    found = scaled(image, (30, 20), "bilinear", "pillow")
    np.testing.assert_array_equal(found, by_pillow(image, (30, 20), "bilinear"))


def photos(folder):
    (folder / "a").mkdir()
    for index in range(3):
        image = noise(np.random.default_rng(index), 90, 120)
        Image.fromarray(image).save(folder / "a" / f"{index}.jpg")
    return load_folder(folder)


PILLOW = Preprocess(resize=64, crop=56, library="pillow")
TRANSFORMS = {
    "test": EvalTransform(PILLOW),
    "train": TrainTransform(32, Augment(), PILLOW),
    "crop's own": TrainTransform(32, Augment(library="pillow")),
    "padded": TrainTransform(32, Augment(crop="padded"), PILLOW),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_loader_uses_it(resampler, name, tmp_path, fresh, monkeypatch):
    images = photos(tmp_path)

    def load():
        batches = eval_batches(3, 3, rank=0, ranks=1)
        (batch,) = Loader(images, TRANSFORMS[name], "BGR", batches, workers=0)
        return batch.images

    with monkeypatch.context() as patch:
        patch.setattr(resample, "native_library", without_compiler)
        by_pillow_itself = load()
        assert resample.prepared() is None
    resample.prepare.cache_clear()
    used = []
    monkeypatch.setattr(
        transforms, "prepared", lambda: used.append(1) or resample.prepared(), raising=True
    )
    np.testing.assert_array_equal(load(), by_pillow_itself)
    assert used and resample.prepared()


def without_compiler():
    raise KernelsUnavailable("no compiler")


def test_a_loader_of_others_does_not(tmp_path, fresh):
    images = photos(tmp_path)
    for transform in (
        EvalTransform(Preprocess()),
        TrainTransform(32, Augment(library="cv2"), PILLOW),
    ):
        list(Loader(images, transform, "BGR", eval_batches(3, 3, rank=0, ranks=1), workers=0))
    assert resample.prepared() is None
