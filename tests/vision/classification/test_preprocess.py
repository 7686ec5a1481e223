import dataclasses
import json
import sys

import numpy as np
import pytest
import yaml

from official.vision.classification.errors import UsageError
from official.vision.classification.preprocess import PRESETS, Preprocess, parse_preprocess

OTHER = Preprocess("RGB", (1.5, 2.0, 3.0), (4.0, 5.0, 6.25), None, None, "area", "cv2", "nearest")
OTHER_DICT = {
    "order": "RGB",
    "mean": [1.5, 2, 3],
    "std": [4, 5, 6.25],
    "resize": None,
    "crop": None,
    "interpolation": "area",
    "library": "cv2",
    "rounding": "nearest",
}


def parsed(text):
    return Preprocess().override(parse_preprocess(text))


def refusal(call, *args):
    with pytest.raises(UsageError) as caught:
        call(*args)
    message = str(caught.value)
    assert message.startswith(("preprocess: ", "--preprocess ")) and "\n" not in message
    assert len(message) < 600
    return message


def test_presets_are_what_the_projects_publish():
    """torchvision's constants on a scale of 0 to 1, in RGB."""
    mean = 255 * np.array([0.485, 0.456, 0.406])
    std = 255 * np.array([0.229, 0.224, 0.225])
    for name in ("torchvision", "mmpretrain"):
        assert PRESETS[name].order == "RGB"
        np.testing.assert_allclose(PRESETS[name].mean, mean, atol=1e-9)
        np.testing.assert_allclose(PRESETS[name].std, std, atol=1e-9)
    assert PRESETS["megengine"].order == "BGR"
    np.testing.assert_allclose(PRESETS["megengine"].mean, mean[::-1], atol=1e-9)
    np.testing.assert_allclose(PRESETS["megengine"].std, std[::-1], atol=1e-9)
    for preset in PRESETS.values():
        assert (preset.resize, preset.crop, preset.interpolation) == (256, 224, "bilinear")
    resizing = {name: (preset.library, preset.rounding) for name, preset in PRESETS.items()}
    assert resizing == {
        "megengine": ("cv2", "down"),
        "torchvision": ("pillow", "down"),
        "mmpretrain": ("cv2", "down"),
    }


def test_values_are_kept():
    assert Preprocess.from_dict(OTHER_DICT) == OTHER
    assert Preprocess.from_dict({}) == Preprocess() == PRESETS["megengine"]
    partial = Preprocess.from_dict({"resize": 292, "crop": 256})
    assert partial == dataclasses.replace(Preprocess(), resize=292, crop=256)
    with pytest.raises(dataclasses.FrozenInstanceError):
        OTHER.order = "BGR"


BOTH_EDGES = Preprocess(resize=(600, 500), crop=448, library="pillow", interpolation="bicubic")


@pytest.mark.parametrize("preprocess", [*PRESETS.values(), OTHER, BOTH_EDGES])
def test_round_trips(preprocess):
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    text = json.dumps(preprocess.to_dict())
    assert Preprocess.from_dict(json.loads(text)) == preprocess
    assert parsed(text) == preprocess
    assert parsed(yaml.safe_dump(json.loads(text))) == preprocess


def test_an_unknown_key_is_named_with_the_known_ones():
    message = refusal(Preprocess.from_dict, {"order": "RGB", "sdt": [1, 2, 3]})
    assert "'sdt'" in message
    for name in OTHER_DICT:
        assert name in message.split("there are")[1]
    assert "1" in refusal(Preprocess.from_dict, {1: 2})


@pytest.mark.parametrize("values", [None, 3, "RGB", [("order", "RGB")], [[0] * 10**6], True])
def test_what_is_no_mapping_is_refused(values):
    refusal(Preprocess.from_dict, values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("order", "rgb"),
        ("order", None),
        ("order", ["RGB"]),
        ("order", "x" * 10**6),
        ("interpolation", "lanczos"),
        ("interpolation", 1),
        ("mean", [1, 2]),
        ("mean", [1, 2, 3, 4]),
        ("mean", []),
        ("mean", 123),
        ("mean", "123"),  # not the numbers 1, 2 and 3
        ("mean", b"123"),
        ("mean", {1: 0, 2: 0, 3: 0}),
        ("mean", {1, 2, 3}),
        ("mean", [1, 2, "x"]),
        ("mean", [1, 2, None]),
        ("mean", [1, 2, [3]]),
        ("mean", [1, 2, float("nan")]),
        ("mean", [1, 2, float("inf")]),
        ("mean", [1, 2, 1e30]),
        ("mean", [1, 2, 10**400]),
        ("mean", [object()] * 3),
        ("std", [1, 0, 1]),
        ("std", [1, 1, -1]),
        ("std", [1, float("nan"), 1]),
        ("resize", 0),
        ("resize", -256),
        ("resize", 256.0),
        ("resize", "256"),
        ("resize", True),
        ("resize", []),
        ("resize", [256]),
        ("resize", [256, 256, 256]),
        ("resize", [256, None]),
        ("resize", [256, 0]),
        ("resize", [256, 256.0]),
        ("resize", [256, [256]]),
        ("resize", {256: 256}),
        ("resize", [223, 600]),  # smaller than crop
        ("resize", [600, 223]),
        ("resize", 65536),
        ("resize", 10**400),
        ("library", "PIL"),
        ("library", None),
        ("rounding", "up"),
        ("rounding", ["down"]),
        ("crop", 0),
        ("crop", 224.5),
        ("crop", False),
        ("crop", 257),  # larger than resize
        ("crop", 10**400),
    ],
)
def test_wrong_values_are_refused_by_their_key(key, value):
    assert key in refusal(Preprocess.from_dict, {key: value})


def test_a_value_that_contains_itself_is_refused():
    value = []
    value += [value] * 3
    for key in OTHER_DICT:
        refusal(Preprocess.from_dict, {key: value})
    refusal(Preprocess.from_dict, value)


def test_area_is_cv2s_alone():
    for library in ("cv2", "pillow"):
        for interpolation in ("nearest", "bilinear", "bicubic"):
            Preprocess(library=library, interpolation=interpolation)
    Preprocess(library="cv2", interpolation="area")
    message = refusal(Preprocess.from_dict, {"library": "pillow", "interpolation": "area"})
    assert "area" in message and "pillow" in message


def test_height_and_width():
    for given in ([600, 500], (600, 500)):
        preprocess = Preprocess.from_dict({"resize": given, "crop": 448})
        assert preprocess.resize == (600, 500)
        assert hash(preprocess) == hash(Preprocess(resize=(600, 500), crop=448))
    assert parsed("{resize: [600, 500], crop: 448}").resize == (600, 500)
    assert parsed("{resize: [224, 500]}").crop == 224
    assert "crop 448" in refusal(Preprocess.from_dict, {"resize": (447, 600), "crop": 448})


@pytest.mark.parametrize(
    ("resize", "crop", "size"),
    [
        (256, 224, 224),
        (None, 224, 224),
        ((600, 500), 448, 448),
        (256, None, 256),
        ((600, 500), None, 500),
        ((500, 600), None, 500),
        (None, None, None),
    ],
)
def test_size_is_that_of_the_largest_square(resize, crop, size):
    assert Preprocess(resize=resize, crop=crop).size == size


def test_presets_by_name():
    for name, preset in PRESETS.items():
        assert parsed(name) == preset


def test_a_preset_leaves_the_sizes_to_the_weights():
    """Networks trained for 448 or 32 pixels are still so in other channel orders."""
    own = Preprocess(resize=(600, 600), crop=448, interpolation="bicubic", rounding="nearest")
    for name, preset in PRESETS.items():
        expected = dataclasses.replace(preset, resize=(600, 600), crop=448)
        assert own.override(parse_preprocess(name)) == expected
    sizes = {name: PRESETS[name].to_dict() for name in PRESETS}
    assert own.override(sizes["mmpretrain"]) == PRESETS["mmpretrain"]  # which only a name does


def test_another_order_takes_mean_and_std_along():
    own = Preprocess("BGR", (1, 2, 3), (4, 5, 6))
    assert own.override({"order": "RGB"}) == Preprocess("RGB", (3, 2, 1), (6, 5, 4))
    given = own.override({"order": "RGB", "mean": [7, 8, 9]})
    assert (given.mean, given.std) == ((7, 8, 9), (6, 5, 4))
    assert own.override({"order": "BGR", "crop": 96}) == dataclasses.replace(own, crop=96)


def test_null_is_none():
    none = parsed("{mean: null, std: null, resize: null, crop: null}")
    assert (none.mean, none.std, none.resize, none.crop) == ((0, 0, 0), (1, 1, 1), None, None)


def test_inline():
    yaml_text = "{order: RGB, mean: [1.5, 2, 3], std: [4, 5, 6.25], resize: null, crop: ~, "
    assert parsed(yaml_text + "interpolation: area, library: cv2, rounding: nearest}") == OTHER
    assert parsed(json.dumps(OTHER_DICT)) == OTHER
    assert parsed("crop: 192") == dataclasses.replace(Preprocess(), crop=192)
    assert parsed('{"mean": [1e2, 2.5e+1, 0]}').mean == (100, 25, 0)


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_file(tmp_path, dump):
    path = tmp_path / "préparation"
    path.write_text(dump(OTHER_DICT), encoding="utf-8")
    assert parsed(str(path)) == OTHER


def test_what_is_neither_a_preset_nor_a_file_is_refused(tmp_path):
    missing = str(tmp_path / "missing.yaml")
    for text in (missing, str(tmp_path), "imagenet", "", "x" * 300):
        message = refusal(parse_preprocess, text)
        assert text in message and "torchvision" in message


def test_what_is_no_yaml_is_refused(tmp_path):
    for text in ("{order: RGB", "{order: [}", ": :", "{mean: 2001-99-99}", "{mean: 2001-01-01}"):
        refusal(parse_preprocess, text)
    refusal(parse_preprocess, "[" * sys.getrecursionlimit() + ":")
    path = tmp_path / "weights.pkl"
    for content in (b"", b"\x80\x04\x95\xff\xfe", b"- 1\n- 2\n", b"order: R\xffB"):
        path.write_bytes(content)
        refusal(parse_preprocess, str(path))


@pytest.mark.parametrize("tag", ["apply:os.mkdir", "new:os.mkdir"])
def test_yaml_runs_no_code(tmp_path, tag):
    target = tmp_path / "made"
    text = f'{{order: !!python/object/{tag} ["{target}"]}}'
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.safe_load(text)
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    assert "python/object" in refusal(parse_preprocess, text)
    assert "python/object" in refusal(parse_preprocess, str(path))
    assert not target.exists()
    refusal(parse_preprocess, "{order: !!python/name:os.system }")


def test_aliases_that_multiply_are_not_printed():
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for before, name in zip("abcdefghi", "bcdefghij"):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 10)}]")
    values = yaml.safe_load("\n".join(lines))["j"]  # 10 ** 10 numbers
    for key in OTHER_DICT:
        refusal(Preprocess.from_dict, {key: values})
    refusal(Preprocess.from_dict, values)
