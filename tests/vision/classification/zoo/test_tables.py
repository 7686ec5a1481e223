"""timm's and torchvision's rows, against what these packages say of them.

``tests/oracles/published.json.gz`` was made from timm's and torchvision's own objects and result
files. Only the digests and parameters are from elsewhere.
"""

import math
import re

import pytest

from official.vision.classification.zoo import ARCHS, ROWS
from official.vision.classification.zoo.rows import BY_NAME
from official.vision.classification.zoo.rows import tables as tables_module
from tests.networks import cost_of
from tests.oracles import published

SAID = published.load()
TIMM, RESULTS = SAID["timm"]["rows"], SAID["timm"]["results"]
# torchvision's enum members by timm's name for the same file.
TAGS = {"IMAGENET1K_V1": "tv_in1k", "IMAGENET1K_V2": "tv2_in1k"}
TORCHVISION = {
    f"{arch}.{TAGS[member]}": said
    for (arch, member), said in (
        (name.split("."), said) for name, said in SAID["torchvision"]["rows"].items()
    )
}
NAMES = sorted(published.names())
LICENCES = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
}
# timm's names of networks that are called otherwise here.
OTHER_NAMES = [
    (r"resnet(\d+)([cds])", r"resnetv1\2\1"),
    (r"resnetv2_(50|101)", r"resnetv2_\1_timm"),
]


def arch_of_timm(name):
    arch = name.split(".")[0]
    for pattern, ours in OTHER_NAMES:
        if re.fullmatch(pattern, arch):
            return re.sub(pattern, ours, arch)
    return arch


def test_the_rows_are_those():
    rows = [row for row in ROWS if row.source in ("timm", "torchvision")]
    assert sorted(row.name for row in rows) == NAMES
    assert {row.name for row in rows if row.source == "torchvision"} == set(TORCHVISION)
    assert len({row.url for row in rows}) == len(rows) == 110


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_what_its_publisher_says(name):
    row, said = BY_NAME[name], TIMM[name]
    assert row.arch == arch_of_timm(name) and row.arch in ARCHS
    assert (row.dataset, row.num_classes) == ("ImageNet-1k", said["num_classes"])
    assert row.licence == LICENCES[said["license"]]
    assert row.commercial == (said["license"] != "cc-by-nc-4.0")
    own = re.fullmatch(r"res(net|next)\w+\.tv_in1k|\w+\.tv2_in1k|\w+\.a[123]_in1k", name)
    assert row.recipe == (name if own else None)
    for result in row.results:
        images = result.preprocess
        assert (images.order, images.library, images.rounding) == ("RGB", "pillow", "down")
        assert images.interpolation == said["interpolation"] and said["crop_mode"] == "center"
        assert images.mean == pytest.approx([255 * value for value in said["mean"]])
        assert images.std == pytest.approx([255 * value for value in said["std"]])


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_accuracies_are_the_publishers(name):
    """The size that a file is tested at comes first; timm rounds edges down."""
    row, said = BY_NAME[name], TIMM[name]
    sizes = [
        (said["test_input_size"] or said["input_size"], said["test_crop_pct"] or said["crop_pct"]),
        (said["input_size"], said["crop_pct"]),
    ]
    expected = {}
    for (_, _, size), share in sizes:
        found = RESULTS.get(name, {}).get(f"{size}/{share:.3f}", {})
        expected[size, math.floor(size / share)] = dict(found)
    if row.source == "torchvision":
        said = TORCHVISION[name]
        own = expected.pop((said["crop"], said["resize"]), {})
        own.update(top1=said["acc@1"], top5=said["acc@5"])
        later = {key: value for key, value in expected.items() if key[0] != said["crop"]}
        expected = {(said["crop"], said["resize"]): own, **later}
    found = {
        (result.preprocess.crop, result.preprocess.resize): {
            **{
                key: v for key, v in [("top1", result.top1), ("top5", result.top5)] if v is not None
            },
            **result.others,
        }
        for result in row.results
    }
    assert found == expected
    assert list(found) == list(expected)
    first = row.results[0]
    assert (row.preprocess, row.macs) == (first.preprocess, first.macs)
    assert (row.top1, row.top5) == (first.top1, first.top5)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_the_publishers_and_its_digest_what_its_name_or_page_says(name):
    row, said = BY_NAME[name], TIMM[name]
    digits = row.digest_prefix
    assert row.digest_is_sha256
    if row.source == "torchvision":
        assert row.url == TORCHVISION[name]["url"]
    if row.url.startswith("https://huggingface.co/"):
        revision = r"(main|[0-9a-f]{40})"
        hub = said["hf_hub_id"] + (name if said["hf_hub_id"].endswith("/") else "")
        file = rf"https://huggingface.co/{hub}/resolve/{revision}/model.safetensors"
        assert re.fullmatch(file, row.url)
        assert re.fullmatch(r"[0-9a-f]{64}|", digits)
        assert digits or not re.search(r"-[0-9a-f]{8}\.pth$", said["url"])  # none is to be had
    else:
        # GitHub leads from the old owner's name to the new one.
        same = "rwightman/pytorch-image-models", "huggingface/pytorch-image-models"
        assert row.url.replace(*same) == said["url"].replace(*same)
        assert row.url.endswith(f"-{digits}.pth") and re.fullmatch("[0-9a-f]{8}", digits)


def test_what_cannot_be_verified_is_little():
    without = {row.name for row in ROWS if not row.digest_prefix}
    assert without == {
        *("resnet34.ra4_e3600_r224_in1k", "resnet18d.ra4_e3600_r224_in1k"),
        *("resnetv2_18d.ra4_e3600_r224_in1k", "resnetv2_34d.ra4_e3600_r224_in1k"),
        *("resnetv2_34d.ra4_e3600_r384_in1k", "resnetv2_50.a1h_in1k", "resnetv2_101.a1h_in1k"),
    }
    assert sum(len(row.digest_prefix) == 64 for row in ROWS if row.shipped is None) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_multiply_adds(name):
    row = BY_NAME[name]
    if name in TORCHVISION:
        assert row.params == TORCHVISION[name]["num_params"]
        assert row.macs == pytest.approx(TORCHVISION[name]["gmacs"] * 1e9, abs=1e6)
    for result in row.results:
        params, macs, count = cost_of(row.arch, 1000, result.preprocess.crop)
        assert row.params == params == count
        assert result.macs == pytest.approx(macs, abs=0.5e6)


def test_accuracies_of_the_papers():
    """Wightman et al. (arXiv:2110.00476), Table 4 and 2: ResNet-50 at 224 px."""
    for tag, paper in (("a1", 80.4), ("a2", 79.8), ("a3", 78.1)):
        results = BY_NAME[f"resnet50.{tag}_in1k"].results
        (top1,) = (result.top1 for result in results if result.preprocess.crop == 224)
        assert top1 == pytest.approx(paper, abs=0.1)


def test_who_trained_them_is_told():
    for row in ROWS:
        tag = row.name.partition(".")[2]
        assert ("Facebook" in row.note) == tag.startswith("fb_")
        assert ("GluonCV" in row.note) == tag.startswith("gluon")
        assert (row.licence_notice is None) == row.commercial == (not tag.startswith("fb_"))
    row = BY_NAME["resnet50.fb_swsl_ig1b_ft_in1k"]
    assert row.licence_notice == (
        "resnet50.fb_swsl_ig1b_ft_in1k: the licence of these weights, CC-BY-NC-4.0, forbids "
        "commercial use"
    )
    assert "No accuracy" in BY_NAME["resnext101_32x48d.fb_wsl_ig1b_ft_in1k"].note


def test_a_networks_rows_are_in_order():
    """Free ones first, the most accurate first: the first is what pretrained=True may mean."""
    rows = tables_module.read_tables()
    archs = [row.arch for row in rows]
    assert len([1 for a, b in zip(archs, archs[1:]) if a != b]) + 1 == len(set(archs))
    for arch in set(archs):
        keys = [(not row.commercial, -(row.top1 or 0)) for row in rows if row.arch == arch]
        assert keys == sorted(keys), arch
