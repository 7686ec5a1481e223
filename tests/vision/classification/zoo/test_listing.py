"""The table of published weights, as ``--list`` prints it."""

import pytest

from official.vision.classification import list_models
from official.vision.classification.errors import UsageError
from official.vision.classification.zoo import ROWS, default_row
from official.vision.classification.zoo.listing import lines_for, listed
from tests.networks import FACTS
from tests.scripts import load_script

NO_WEIGHTS = ["resnet32_cifar", "resnet44_cifar", "resnet56_cifar", "resnet110_cifar"]
NO_WEIGHTS += ["resnetv1a50", "resnetv1a101", "resnetv1a152"]


def test_every_row_and_every_network_without_one_is_there_once():
    found = listed()
    names = [each.name for each in found]
    assert sorted(names) == sorted([row.name for row in ROWS] + NO_WEIGHTS)
    assert {each.network for each in found} == set(FACTS)
    for each in found[-len(NO_WEIGHTS) :]:
        params, macs, _ = FACTS[each.name]
        px = 32 if each.name.endswith("_cifar") else 224
        found_macs = round(each.macs / 1e9, 4 if macs < 0.5 else 3)
        assert (each.params, found_macs, each.px) == (params, macs, px)
        assert (each.top1, each.licence, each.is_default) == (None, "", False)


def test_a_row_is_listed_as_it_is():
    found = {each.name: each for each in listed()}
    for row in ROWS:
        each = found[row.name]
        assert each[1:4] == (row.arch, row.dataset, row.top1)
        assert each[4:8] == (row.preprocess.crop, row.params, row.macs, row.licence)
        assert each.is_default == (default_row(row.arch) == row)


def test_the_best_come_first_within_a_data_set():
    found = listed()[: len(ROWS)]
    datasets = list(dict.fromkeys(each.dataset for each in found))
    assert datasets[0] == "ImageNet-1k"
    assert found == sorted(
        found, key=lambda each: (datasets.index(each.dataset), -(each.top1 or 0))
    )
    assert found[0].name == "resnext101_32x32d.fb_wsl_ig1b_ft_in1k"


def test_filters():
    names = [each.name for each in listed("resnet50*", 80.85)]
    assert names == [
        *("resnet50d.ra4_e3600_r224_in1k", "resnet50d.a1_in1k", "resnet50d.ra2_in1k"),
        *("resnet50.a1_in1k", "resnet50d.a2_in1k", "resnet50.fb_swsl_ig1b_ft_in1k"),
        *("resnet50.d_in1k", "resnet50.c1_in1k", "resnet50.c2_in1k", "resnet50.tv2_in1k"),
        *("resnet50_8xb16_cifar10", "resnet50_8xb8_cub"),
    ]
    # A pattern may be the network's; its own names fit no row's.
    assert {each.network for each in listed("resnetv1d50")} == {"resnetv1d50"}
    assert [each.name for each in listed("resnet32*")] == ["resnet32_cifar"]
    assert listed("resnet32*", 1.0) == []


def test_names_by_accuracy_and_licence():
    names = list_models("resnet18*", min_top1=72.5)
    assert names == [
        *("resnet18_8xb16_cifar10", "resnet18d.ra4_e3600_r224_in1k"),
        *("resnet18d.ra2_in1k", "resnet18.fb_swsl_ig1b_ft_in1k", "resnet18.a1_in1k"),
        "resnet18.fb_ssl_yfcc100m_ft_in1k",
    ]
    free = list_models("resnet18*", min_top1=72.5, commercial=True)
    assert free == [name for name in names if ".fb_" not in name]
    assert list_models("resnet18.*", commercial=False) == [
        *("resnet18.fb_ssl_yfcc100m_ft_in1k", "resnet18.fb_swsl_ig1b_ft_in1k"),
    ]


def test_the_lines():
    head, *rows, empty = lines_for("resnet50.tv*", None)
    assert head.split("  ")[0] == "row" and head.endswith("  licence") and empty == ""
    assert [row.split() for row in rows] == [
        "resnet50.tv2_in1k resnet50 ImageNet-1k 80.86 224 25.56 4.09 BSD-3-Clause".split(),
        "resnet50.tv_in1k resnet50 ImageNet-1k 76.13 224 25.56 4.09 BSD-3-Clause".split(),
    ]
    *_, note = lines_for("resnet50_fbaug*", None)
    assert note.startswith("* what the network's name alone means.")
    assert len({len(line[: line.index("ImageNet")]) for line in rows}) == 1


@pytest.mark.parametrize(
    ("pattern", "min_top1", "message"),
    [
        ("nosuch*", None, "--list nosuch*: there is no such row or network"),
        (None, 99.5, "--list *: there is no such row or network of at least 99.5 % top-1"),
    ],
)
def test_nothing_to_list(pattern, min_top1, message):
    with pytest.raises(UsageError) as caught:
        list(lines_for(pattern, min_top1))
    assert str(caught.value) == message


@pytest.mark.parametrize("script", ["train.py", "test.py", "inference.py"])
def test_the_scripts_list_and_end(script, capsys):
    main = load_script(script).main
    assert main(["--list", "resnet34*", "--min-top1", "78"]) == 0
    out, error = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[1:-2]] == [
        *("resnet34.ra4_e3600_r224_in1k", "resnet34d.ra2_in1k", "resnet34_8xb16_cifar10"),
    ]
    assert error == ""
    assert main(["--list", "nosuch"]) == 2
    assert capsys.readouterr().err == (
        f"{script}: error: --list nosuch: there is no such row or network\n"
    )
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ROWS) + len(NO_WEIGHTS) + 3
    with pytest.raises(SystemExit) as caught:
        main(["--min-top1", "80"])
    assert caught.value.code == 2
    assert "--min-top1 needs --list" in capsys.readouterr().err
