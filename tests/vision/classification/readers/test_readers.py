import bz2
import collections
import gzip
import lzma
import os
import pickle
import random
import time
import tracemalloc
from pathlib import Path

import megengine
import megengine.module as M
import numpy as np
import pytest
from safetensors.numpy import save

from official.vision.classification import readers
from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import WeightFile, read_weights
from tests.oracles.files import FOLDER, read_manifest
from tests.oracles.seeded import of_types
from tests.vision.classification.readers.handmade import stored

PROTOCOLS = [2, 3, 4, 5]


def state_dict():
    net = M.Sequential(M.Conv2d(2, 3, 3, bias=True), M.BatchNorm2d(3), M.Linear(4, 5))
    return net.state_dict()


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_megengine_files(protocol, tmp_path):
    weights = state_dict()
    path = tmp_path / "weights.safetensors"  # a suffix that lies
    for saved in (weights, {"epoch": 3, "state_dict": weights}):
        megengine.save(saved, str(path), pickle_protocol=protocol)
        for given in (path, str(path)):
            found = read_weights(given)
            assert isinstance(found, WeightFile)
            assert (found.format, found.metadata) == ("megengine-pickle", {})
            assert list(found.tensors) == list(weights)
            for name, array in weights.items():
                np.testing.assert_array_equal(found.tensors[name], array, strict=True)


def test_what_is_read_loads_into_the_network(tmp_path):
    net, other = (M.Sequential(M.Conv2d(2, 3, 3), M.BatchNorm2d(3)) for _ in range(2))
    path = tmp_path / "w"
    megengine.save(net.state_dict(), str(path))
    other.load_state_dict(read_weights(path).tensors)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


def test_safetensors_files(tmp_path):
    weights = {name: np.ascontiguousarray(array) for name, array in state_dict().items()}
    found = read_weights(written(tmp_path / "weights.pkl", save(weights, {"arch": "tiny"})))
    assert (found.format, found.metadata) == ("safetensors", {"arch": "tiny"})
    assert set(found.tensors) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(found.tensors[name], array, strict=True)


def test_a_safetensors_header_may_look_like_a_pickle(tmp_path):
    """640 is 0x280: the file starts with 80 02, as a pickle of protocol 2 does."""
    raw = save({"a": np.zeros(2, np.float32)})
    header = raw[8 : 8 + int.from_bytes(raw[:8], "little")].rstrip().ljust(640)
    path = written(tmp_path / "w", (640).to_bytes(8, "little") + header + raw[-8:])
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read_weights(path).format == "safetensors"


SAVERS = {"pickle": pickle.dumps, "safetensors": save}


@pytest.mark.parametrize("saver", SAVERS)
def test_floats_come_as_float32_and_the_rest_as_they_are(saver, tmp_path):
    values = [[1.5, -2.0], [65504.0, 6e-8]]
    arrays = {code: np.array(values, code) for code in ("f2", "f4", "f8")}
    arrays.update({"i8": np.array(5), "u1": np.array([1, 255], "u1"), "?": np.array([True, False])})
    found = read_weights(written(tmp_path / "w", SAVERS[saver](arrays))).tensors
    for name, array in arrays.items():
        expected = array.astype(np.float32) if array.dtype.kind == "f" else array
        np.testing.assert_array_equal(found[name], expected, strict=True)
        assert found[name].flags.c_contiguous and found[name].flags.aligned
        assert not found[name].flags.writeable


def test_special_floats_stay_and_large_ones_are_refused(tmp_path):
    special = np.array([np.nan, np.inf, -np.inf, 0.1])
    found = read_weights(written(tmp_path / "w", save({"a": special}))).tensors["a"]
    np.testing.assert_array_equal(found, special.astype(np.float32))
    assert "do not fit in float32" in refusal(
        written(tmp_path / "x", save({"a": np.array([1.0, 1e39])}))
    )


def test_tied_weights_stay_tied(tmp_path):
    shared = np.zeros(4, np.float16)
    path = written(tmp_path / "w", pickle.dumps({"a": shared, "b": shared}))
    found = read_weights(path).tensors
    assert found["a"] is found["b"] and found["a"].dtype == np.float32


def test_missing_folder_empty_and_unreadable(tmp_path, monkeypatch):
    assert "no such file" in refusal(tmp_path / "absent.pkl")
    assert "is a folder" in refusal(tmp_path)
    assert "is empty" in refusal(written(tmp_path / "empty", b""))
    assert "cannot be opened" in refusal(written(tmp_path / "file", b"x") / "below")
    assert "cannot be opened" in refusal(tmp_path / ("n" * 300))
    with pytest.raises(WeightsError, match="cannot be opened: embedded null byte"):
        read_weights(str(tmp_path) + "/a\0b")

    def deny(*args):
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path / "secret", pickle.dumps({"a": np.zeros(2)}))
    if os.geteuid():
        path.chmod(0)
    else:  # root may read everything
        monkeypatch.setattr("pathlib.Path.open", deny)
    assert "cannot be opened: Permission denied" in refusal(path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "w"
    with path.open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate((4 << 30) + 1)  # sparse: takes no space
    start = time.perf_counter()
    assert "4,294,967,297 bytes" in refusal(path)
    assert time.perf_counter() - start < 5


TORCH = b"\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n)Ru."
OTHERS = {
    "html": (b"<!DOCTYPE html>\n<html><head><title>404</title>", "an HTML page that starts with"),
    "chinese html": (b"<html><title>" + "找不到".encode() * 80, "an HTML page that starts"),
    "gbk html": ("<html><title>找不到".encode("gbk"), "an HTML page"),
    "text": (b"Not Found\r\n", "text that starts with 'Not Found'"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "text that starts"),
    "json": (b'{"message": "rate limit"}', "text that starts"),
    "old pickle": (pickle.dumps({"a": 1}, 0), "text that starts"),
    "zeros": (bytes(1000), "an unknown format (its first bytes are 00 00"),
    "one byte": (b"\x80", "an unknown format (its first bytes are 80)"),
    "blank": (b"\n \n", "an unknown format"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a PNG image"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "cannot be read as an HDF5 file of Keras"),
    "keras 3": (stored({"config.json": b"{}", "model.weights.h5": b""}), "a network of Keras"),
    "npz": (stored({"a.npy": b""}), "an archive of NumPy (.npz)"),
    "exported": (
        stored({"x/data/weights/weight_0": b"", "x/archive_format": b"pt2"}),
        "is a program of torch.export (.pt2)",
    ),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x032.1" + bytes(50), "is an ONNX network"),
    "flax": (b"\x82\xa6params\x83" + bytes(50), "cannot be read as a msgpack file of flax"),
    "paddle": (
        pickle.dumps({"conv1.weight": np.zeros(2), "StructuredToParameterName@@": {}}, 2),
        "it is a file of Paddle",
    ),
    "tar": (b"a.txt".ljust(257, b"\0") + b"ustar\x0000", "is a tar archive"),
    "index": (b'{"metadata": {"total_size": 9}, "weight_map": {}}', "is JSON, text that starts"),
    "gzip": (gzip.compress(b"x"), "is compressed with gzip; expected a weight file of MegEngine"),
    "xz": (lzma.compress(b"x"), "is compressed with xz"),
    "bzip2": (bz2.compress(b"x"), "is compressed with bzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), "is compressed with zstd"),
    "encrypted": (b"\xd8\x5e\x3a\x7f" + bytes(50), "is an encrypted MindSpore file"),
    "encrypted otherwise": (b"\xda\x5e\x3a\x7f" + bytes(50), "is an encrypted MindSpore file"),
    "plain pickle of torch": (TORCH, "is a plain pickle of PyTorch's values"),
    "zip of something": (stored({"a.txt": b"x"}), "is a zip archive without a data.pkl"),
    "newlines": (b"\n\n\n\nabc", "text that starts with 'abc'"),
    "pickle of a list": (pickle.dumps([1]), "holds a value of type list"),
    "empty dict": (pickle.dumps({}), "holds no tensors"),
    "empty state dict": (pickle.dumps({"epoch": 1, "state_dict": {}}), "holds no tensors"),
    "safetensors without tensors": (save({}), "holds no tensors"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_files_of_another_kind_are_named(case, tmp_path):
    data, expected = OTHERS[case]
    assert expected in refusal(written(tmp_path / "weights.pkl", data))


def test_messages_say_the_way_out(tmp_path):
    for case, way_out in {
        "gzip": "Unpack it with gunzip.",
        "xz": "Unpack it with unxz.",
        "encrypted": "Save it anew without a key.",
        "plain pickle of torch": "with torch.save(model.state_dict(), path).",
        "html": "Download it again.",
        "lfs": "Fetch the file itself with git lfs pull.",
        "index": "give one that holds the whole network.",
        "tar": "Unpack it with tar xf.",
        "npz": "safetensors.numpy.save_file(dict(numpy.load(path)), new_path).",
        "exported": "torch.save(torch.export.load(path).state_dict, new_path).",
        "keras": "in Keras with model.save_weights('name.weights.h5').",
        "flax": "or save it anew with flax.serialization.to_bytes.",
    }.items():
        assert refusal(written(tmp_path / "w", OTHERS[case][0])).endswith(way_out)


@pytest.mark.parametrize("case", sorted({*OTHERS} - {"html", "chinese html", "gbk html"}))
def test_only_what_another_copy_could_mend_is_to_be_downloaded_again(case, tmp_path):
    again = "Download it again" in refusal(written(tmp_path / "w", OTHERS[case][0]))
    damaged = ["text", "json", "zeros", "blank", "newlines", "one byte", "old pickle"]
    assert again == (case in [*damaged, "zip of something", "keras", "flax"])


FORMATS = {".ckpt": "mindspore", ".safetensors": "safetensors"}
OLD = ("cifar_legacy.th", "mmpretrain_published_legacy.pth")


TREES = {"keras_3.h5", "keras_3.keras", "flax_model.msgpack"}  # no state dicts: see keras_flax


@pytest.mark.parametrize("file", sorted({*read_manifest()} - TREES))
def test_files_of_other_frameworks(file, tmp_path):
    """Every tensor of every file that tests/oracles had the frameworks themselves write."""
    path = tmp_path / "weights"
    path.symlink_to(FOLDER / file)  # the content decides, not the name
    found = read_weights(path)
    otherwise = "torch-legacy" if file in OLD else "torch-zip"
    assert found.format == FORMATS.get(Path(file).suffix, otherwise)
    expected = of_types(read_manifest()[file])
    assert set(found.tensors) == set(expected)
    for name, array in expected.items():
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        np.testing.assert_array_equal(found.tensors[name], array, strict=True, err_msg=name)


def good_files():
    weights = state_dict()
    files = {f"pickle {protocol}": pickle.dumps(weights, protocol) for protocol in PROTOCOLS}
    files["checkpoint"] = pickle.dumps({"epoch": 3, "state_dict": weights}, 4)
    files["safetensors"] = save({k: np.ascontiguousarray(v) for k, v in weights.items()})
    return files


GOOD = good_files()


def names_and_shapes(path):
    return [(name, array.shape) for name, array in read_weights(path).tensors.items()]


def in_a_name(data, at, names):
    """Whether byte ``at`` belongs to one of the tensors' names."""
    return any(data[max(0, at - len(n) + 1) : at + len(n)].find(n.encode()) >= 0 for n in names)


@pytest.mark.parametrize("kind", GOOD)
def test_every_cut_of_a_good_file_is_refused(kind, tmp_path):
    data, path = GOOD[kind], tmp_path / "w"
    lengths = random.Random(1).sample(range(len(data)), 100)
    tracemalloc.start()
    try:
        for length in lengths:
            refusal(written(path, data[:length]))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", GOOD)
def test_a_changed_byte_changes_numbers_at_most_or_is_refused(kind, tmp_path):
    """No format has a checksum: a byte of a name can become another name, and nothing else can."""
    data, path, results = GOOD[kind], tmp_path / "w", collections.Counter()
    expected = names_and_shapes(written(path, data))
    generator = random.Random(2)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        for _ in range(1000 // len(GOOD) + 1):
            at, flip = generator.randrange(len(data)), generator.randrange(1, 256)
            changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            try:
                found = names_and_shapes(written(path, changed))
            except WeightsError:
                results["refused"] += 1
                continue
            results["read"] += 1
            if in_a_name(data, at, dict(expected)):
                assert [shape for _, shape in found] == [shape for _, shape in expected]
            else:
                assert found == expected
        assert tracemalloc.get_traced_memory()[1] < (64 << 20) + 4 * len(data)
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 60
    assert min(results["read"], results["refused"]) > 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_is_a_small_multiple_of_the_file(protocol, tmp_path):
    """The worst case: float16, which becomes twice as large, in Fortran order."""
    array = np.asfortranarray(np.ones((1024, 2048), np.float16))
    path = written(tmp_path / "w", pickle.dumps({"a": array}, protocol))
    tracemalloc.start()
    try:
        read_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4.1 * array.nbytes + (1 << 20)


def test_weight_files_are_frozen(tmp_path):
    found = read_weights(written(tmp_path / "w", GOOD["pickle 4"]))
    with pytest.raises(AttributeError):
        found.format = "other"
    assert [type(found.tensors), type(found.metadata)] == [dict, dict]
    assert readers.MAX_BYTES == 4 << 30


def test_a_folder_of_a_distributed_checkpoint(tmp_path):
    assert refusal(tmp_path).endswith("Name a file in it.")
    written(tmp_path / ".metadata", b"x")
    assert "torch.distributed.checkpoint.format_utils dcp_to_torch" in refusal(tmp_path)
