"""Keras's own files, and what h5py writes besides; the library itself is not needed."""

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import open_weights
from official.vision.classification.readers.foreign import Foreign
from tests.oracles.files import FOLDER, read_manifest
from tests.oracles.seeded import of_types
from tests.vision.classification.readers.handmade import FILES
from tests.vision.classification.readers.keras_flax.trees import arrays_of, leaves

NUMBERS = [[0, 1, 2], [3, 4, 5]]
KINDS = {"f2": "f4", "f4": "f4", "f4be": "f4", "f8": "f4", "i2be": "i2", "i8": "i8", "u1": "u1"}


def test_an_h5_file_of_keras():
    expected = of_types(read_manifest()["keras_3.h5"])
    found = arrays_of(FOLDER / "keras_3.h5")
    assert len(found) == 102 + 20  # 20 convolutions have a bias
    for name, value in expected.items():
        assert np.array_equal(found[f"model_weights.{name}"], value), name
    assert open_weights(FOLDER / "keras_3.h5").format == "hdf5"


def test_a_keras_file_has_the_same_under_the_layers_names():
    expected = of_types(read_manifest()["keras_3.keras"])
    found = arrays_of(FOLDER / "keras_3.keras")
    assert open_weights(FOLDER / "keras_3.keras").format == "keras"
    orders = (("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance"))
    places = {part: str(order.index(part)) for order in orders for part in order}
    assert len(found) == len(expected)
    for name, value in expected.items():
        layer, _, part = name.split(".")
        assert np.array_equal(found[f"layers.{layer}.{places[part]}"], value), name


@pytest.fixture(scope="module")
def everything():
    return leaves(open_weights(FILES / "everything.h5").value)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_any_type_and_order(kind, everything):
    tensor = everything[f"plain.{kind}"]
    assert tensor.shape == (2, 3) and tensor.to_numpy().tolist() == NUMBERS
    assert tensor.to_numpy().dtype.isnative
    assert arrays_of(FILES / "everything.h5")[f"plain.{kind}"].dtype == KINDS[kind]


def test_small_and_empty_data_sets(everything):
    assert everything["plain.compact"].to_numpy().tolist() == NUMBERS
    assert everything["plain.scalar"].to_numpy() == 2.5
    assert everything["plain.empty"].to_numpy().shape == (0, 3)
    assert [float(everything[f"many.{n}"].to_numpy()) for n in range(300)] == list(range(300))


def test_what_could_lead_elsewhere_is_not_followed(everything):
    others = {name: leaf for name, leaf in everything.items() if name.startswith("other.")}
    names = ("text", "complex", "gzip", "chunked", "external", "virtual")
    assert {*others} == {f"other.{name}" for name in names}  # the link by name is not there
    assert all(isinstance(leaf, Foreign) and leaf.damaged for leaf in others.values())
    assert "in another file" in others["other.external"].fault
    assert "no numbers" in everything["plain.unwritten"].fault


REFUSED = {
    "latest.h5": "newer layout of HDF5 than Keras writes. Save it anew in Keras",
    "ordered.h5": "newer layout of HDF5 than Keras writes. Save it anew in Keras",
    "linked.h5": "groups are of a newer form than Keras writes. Save it anew in Keras",
    "cycle.h5": "part of two things, or of itself. Download it again",
}


@pytest.mark.parametrize("file", REFUSED)
def test_other_layouts_are_refused(file):
    with pytest.raises(WeightsError, match=REFUSED[file]):
        open_weights(FILES / file)


def test_a_zip_archive_without_weights(tmp_path):
    data = (FOLDER / "keras_3.keras").read_bytes()
    path = tmp_path / "x.keras"
    path.write_bytes(data.replace(b"model.weights.h5", b"model.weights.h6"))
    with pytest.raises(WeightsError, match=r"as a \.keras file: it has no member model.weights.h5"):
        open_weights(path)
