"""What a network is tested with: MegEngine's transforms for cv2, torchvision's for Pillow."""

import hashlib

import cv2
import megengine.data.transform as T
import numpy as np
import pytest
from PIL import Image

from official.vision.classification.data.transforms import EvalTransform, center_crop, resize
from official.vision.classification.errors import DataError
from official.vision.classification.preprocess import Preprocess

CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# cv2, against MegEngine


@pytest.mark.parametrize("interpolation", CV2)
def test_resize_and_crop_are_megengines(interpolation):
    rng = np.random.default_rng(0)
    shapes = rng.integers(20, 200, (40, 2)).tolist()
    shapes += [[57, 57], [57, 58], [58, 57], [1, 9], [9, 1], [300, 31], [31, 300]]
    for seed, (height, width) in enumerate(shapes):
        image = noise(height, width, seed)
        size = int(rng.integers(30, 100)) if seed % 3 else 57
        crop = int(rng.integers(1, size + 1))
        preprocess = Preprocess(resize=size, crop=crop, interpolation=interpolation)
        resized = T.Resize(size, CV2[interpolation]).apply(image)
        np.testing.assert_array_equal(resize(image, preprocess), resized)
        np.testing.assert_array_equal(center_crop(resized, crop), T.CenterCrop(crop).apply(resized))
        np.testing.assert_array_equal(
            EvalTransform(preprocess)(image), T.CenterCrop(crop).apply(resized)
        )


@pytest.mark.parametrize("interpolation", CV2)
def test_evaluation_at_imagenets_size(interpolation):
    image = cv2.GaussianBlur(noise(375, 500), (0, 0), 2)
    transforms = [T.Resize(256, CV2[interpolation]), T.CenterCrop(224)]
    expected = T.Compose(transforms).apply(image)
    assert expected.shape == (224, 224, 3)
    found = EvalTransform(Preprocess(interpolation=interpolation))(image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


# Pillow, against torchvision 0.29


@pytest.mark.parametrize("interpolation", PILLOW)
def test_pillow_resizes_and_torchvision_says_where(interpolation):
    """``Resize`` and ``CenterCrop`` as torchvision's documentation and source give them."""
    rng = np.random.default_rng(1)
    shapes = [*rng.integers(20, 200, (30, 2)).tolist(), [57, 57], [57, 58], [300, 31], [31, 300]]
    for seed, (height, width) in enumerate(shapes):
        image = noise(height, width, seed)
        size = int(rng.integers(30, 100)) if seed % 3 else 57
        crop = int(rng.integers(1, size + 1))
        short, long_ = min(height, width), max(height, width)
        longer = int(size * long_ / short)
        shape = (size, longer) if width <= height else (longer, size)  # width and height
        resized = np.asarray(Image.fromarray(image).resize(shape, PILLOW[interpolation]))
        top = int(round((shape[1] - crop) / 2.0))
        left = int(round((shape[0] - crop) / 2.0))
        preprocess = Preprocess(
            resize=size, crop=crop, interpolation=interpolation, library="pillow"
        )
        np.testing.assert_array_equal(resize(image, preprocess), resized)
        found = EvalTransform(preprocess)(image)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, resized[top : top + crop, left : left + crop])


@pytest.mark.parametrize(
    ("seed", "height", "width", "bilinear", "bicubic"),
    [
        (0, 375, 500, "f3812ed4cc037eeb", "89ff753a43e2ae6c"),
        (2, 333, 499, "ed320b044264b9ca", "65fa4b79be429c0a"),
        (3, 257, 301, "934a6f4d4759f5c7", "aef2a3fd6f6b2c57"),
        (6, 601, 307, "62eabc58a9ff3afe", "31f8584b2840cbb3"),
        (10, 97, 613, "984a85be6a06348d", "2be2aa33a6ce932c"),
    ],
)
def test_the_very_pixels_of_torchvision(seed, height, width, bilinear, bicubic):
    """sha256 of what Resize(256) or Resize(236, BICUBIC), and CenterCrop(224) made of the image."""
    for size, interpolation, digest in ((256, "bilinear", bilinear), (236, "bicubic", bicubic)):
        preprocess = Preprocess(resize=size, interpolation=interpolation, library="pillow")
        found = EvalTransform(preprocess)(noise(height, width, seed))
        assert hashlib.sha256(found.tobytes()).hexdigest().startswith(digest)


def test_the_libraries_differ_where_an_image_shrinks():
    """cv2's bilinear looks at 2 x 2 pixels; Pillow's averages all that a new pixel covers."""
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::8] = 240
    shrunk = {
        library: resize(stripes, Preprocess(resize=10, crop=None, library=library))
        for library in ("cv2", "pillow")
    }
    assert shrunk["cv2"].max() == 0
    assert abs(shrunk["pillow"].mean() - 240 / 8) < 2


# Sizes and corners


@pytest.mark.parametrize(
    ("height", "width", "down", "nearest"),
    [
        (375, 500, (256, 341), (256, 341)),  # 341.33
        (333, 499, (256, 383), (256, 384)),  # 383.62
        (257, 301, (256, 299), (256, 300)),  # 299.83
        (301, 257, (299, 256), (300, 256)),
        (512, 513, (256, 256), (256, 256)),  # 256.5, to the even
        (512, 515, (256, 257), (256, 258)),  # 257.5
        (300, 300, (256, 256), (256, 256)),
    ],
)
@pytest.mark.parametrize("library", ["cv2", "pillow"])
def test_the_long_edge_in_whole_pixels(library, height, width, down, nearest):
    for rounding, expected in (("down", down), ("nearest", nearest)):
        preprocess = Preprocess(library=library, rounding=rounding)
        assert resize(noise(height, width), preprocess).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("edge", "down", "nearest"),
    [
        (224, 0, 0),
        (225, 0, 0),
        (226, 1, 1),
        (227, 2, 1),
        (256, 16, 16),
        (299, 38, 37),
        (301, 38, 38),
    ],
)
def test_the_corner_of_the_crop_in_whole_pixels(edge, down, nearest):
    ramp = np.zeros((edge, 224, 3), np.uint16)
    ramp[:] = np.arange(edge, dtype=np.uint16)[:, None, None]
    for rounding, first in (("down", down), ("nearest", nearest)):
        for image in (ramp, ramp.transpose(1, 0, 2)):
            crop = center_crop(image, 224, rounding)
            assert crop.shape == (224, 224, 3)
            assert (crop.min(), crop.max()) == (first, first + 223)
    np.testing.assert_array_equal(center_crop(ramp, 224), center_crop(ramp, 224, "down"))


def test_evaluation_rounds_both_the_same_way():
    """333 x 499 gives 383 columns, whose crop starts at 79.5, or 384, at 80."""
    image = np.zeros((333, 499, 3), np.uint8)
    image[:] = np.linspace(0, 255, 499)[None, :, None]
    for rounding, columns, left in (("down", 383, 80), ("nearest", 384, 80)):
        resized = cv2.resize(image, (columns, 256), interpolation=cv2.INTER_LINEAR)
        found = EvalTransform(Preprocess(rounding=rounding))(image)
        np.testing.assert_array_equal(found, resized[16:240, left : left + 224])
    image = np.zeros((256, 299, 3), np.uint8)  # not resized
    image[:] = (np.arange(299) % 256)[None, :, None]
    for rounding, left in (("down", 38), ("nearest", 37)):
        assert EvalTransform(Preprocess(rounding=rounding))(image)[0, 0, 0] == left


@pytest.mark.parametrize("rounding", ["down", "nearest"])
@pytest.mark.parametrize(("height", "width"), [(90, 40), (40, 90), (60, 50)])
def test_height_and_width_do_not_keep_the_proportions(height, width, rounding):
    image = noise(height, width)
    preprocess = Preprocess(resize=(60, 50), crop=None, rounding=rounding)
    expected = cv2.resize(image, (50, 60), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(EvalTransform(preprocess)(image), expected)
    cropped = EvalTransform(preprocess.override({"crop": 40}))(image)
    np.testing.assert_array_equal(cropped, expected[10:50, 5:45])
    pillow = preprocess.override({"library": "pillow"})
    expected = np.asarray(Image.fromarray(image).resize((50, 60), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(EvalTransform(pillow)(image), expected)


# What all have in common


@pytest.mark.parametrize("library", ["cv2", "pillow"])
def test_an_image_of_the_right_size_is_left_as_it_is(library):
    image = noise(40, 50)
    for size in (40, (40, 50), None):
        preprocess = Preprocess(resize=size, crop=None, library=library)
        assert resize(image, preprocess) is image


@pytest.mark.parametrize("library", ["cv2", "pillow"])
def test_an_image_in_any_layout_of_memory(library):
    image = noise(40, 50)
    preprocess = Preprocess(resize=20, crop=16, library=library)
    expected = EvalTransform(preprocess)(np.ascontiguousarray(image[::-1, :, ::-1]))
    image.flags.writeable = False
    np.testing.assert_array_equal(EvalTransform(preprocess)(image[::-1, :, ::-1]), expected)


def test_steps_that_are_none_are_left_out():
    image = noise(40, 50)
    resized = T.Resize(30).apply(image)
    for size, crop, expected in [
        (None, None, image),
        (None, 32, image[4:36, 9:41]),
        (30, None, resized),
    ]:
        found = EvalTransform(Preprocess(resize=size, crop=crop))(image)
        np.testing.assert_array_equal(found, expected)


def test_a_crop_needs_a_large_enough_image():
    assert center_crop(noise(8, 9), 8).shape == (8, 8, 3)
    for height, width in [(7, 9), (9, 7), (7, 7)]:
        with pytest.raises(DataError, match=f"{width}x{height} .* 8"):
            center_crop(noise(height, width), 8)
        with pytest.raises(DataError, match=f"{width}x{height} .* 8"):
            EvalTransform(Preprocess(resize=None, crop=8))(noise(height, width))


@pytest.mark.parametrize("library", ["cv2", "pillow"])
def test_a_strip_does_not_fill_the_memory(library):
    strip = np.zeros((1, 1_000_000, 3), np.uint8)
    with pytest.raises(DataError, match="1000000x1 pixels would grow to 256000000x256"):
        resize(strip, Preprocess(library=library))
    with pytest.raises(DataError, match="9x9 pixels would grow to 20000x30000"):
        resize(noise(9, 9), Preprocess(resize=(30000, 20000), crop=None, library=library))
