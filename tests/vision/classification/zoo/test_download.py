"""``pretrained=True`` and a plain HTTP server: a file comes whole and checked or not at all."""

import dataclasses
import hashlib
import os
import pickle
import re
import shlex
import socket

import megengine.hub
import numpy as np
import pytest

from official.vision.classification.errors import DownloadError, UsageError, WeightsError
from official.vision.classification.zoo import fill_pretrained, get_model
from tests.servers import (
    Server,
    broken_off,
    endless,
    make_certificate,
    status,
    whole,
    without_length,
)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def refusal(mirror, same, kind=WeightsError, **kwargs):
    """What ``pretrained=True`` says; nothing may have come of it."""
    cached = mirror.cached
    model = get_model("resnet20_cifar", **kwargs)
    before = model.state_dict()
    with pytest.raises(WeightsError) as caught:
        fill_pretrained(model, "resnet20_cifar", True)
    assert type(caught.value) is kind
    assert same(model, before)
    assert mirror.cached == cached
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def test_good_weights_are_fetched_once_and_pinned(
    mirror, row, cached, random_state, pkl, same, caplog
):
    data = pkl(random_state)
    mirror.offer(row, data)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert mirror.requests == ["/models/weights/resnet20_cifar_test_91250_5a5a5a5a.pkl"]
    assert mirror.cached == [cached.name, cached.name + ".sha256"]
    assert cached.read_bytes() == data
    assert cached.with_name(cached.name + ".sha256").read_text() == sha256(data) + "\n"
    (warning,) = caplog.messages
    assert "resnet20_cifar_test: every tensor fits, but the origin could not be ver" in warning
    assert "begins with 5a5a5a5a" in warning and sha256(data) in warning

    caplog.clear()
    times = {path: path.stat().st_mtime_ns for path in (mirror.cache, *mirror.cache.iterdir())}
    assert same(get_model("resnet20_cifar_test", pretrained=True), random_state)
    assert len(mirror.requests) == 1
    assert caplog.messages == []
    # Nothing is written, so a cache that is read-only by now serves as well.
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_the_cache_is_that_of_megengines_hub(mirror, row, cached, random_state, pkl, same):
    mirror.offer(row, pkl(random_state))
    get_model("resnet20_cifar", pretrained=True)
    assert same(megengine.hub.load_serialized_obj_from_url(row.url), random_state)


def test_what_megengines_hub_has_fetched_is_checked_and_used(
    mirror, row, cached, random_state, pkl, same, caplog
):
    cached.parent.mkdir(parents=True)
    data = pkl(random_state)
    cached.write_bytes(data)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert mirror.requests == []
    assert len(caplog.messages) == 1
    assert cached.with_name(cached.name + ".sha256").read_text() == sha256(data) + "\n"


def test_what_megengines_hub_has_left_unfinished_is_refused(
    mirror, row, cached, random_state, pkl, same
):
    cached.parent.mkdir(parents=True)
    cached.write_bytes(pkl(random_state)[:-1000])
    mirror.offer(row, pkl(random_state))
    message = refusal(mirror, same)
    assert message.startswith(f"{cached}: not the weights of resnet20_cifar_test: ")
    assert message.endswith("; delete it to download it again")
    assert cached.exists() and mirror.requests == []
    cached.unlink()
    get_model("resnet20_cifar", pretrained=True)


@pytest.mark.parametrize("change", ["other weights", "one bit", "empty"])
def test_a_later_change_of_the_cached_file_is_refused(
    change, mirror, row, cached, random_state, pkl, same
):
    data = pkl(random_state)
    mirror.offer(row, data)
    get_model("resnet20_cifar", pretrained=True)
    other = {name: value + 1 for name, value in random_state.items()}
    bit = bytearray(data)
    bit[len(bit) // 2] ^= 1
    cached.write_bytes({"other weights": pkl(other), "one bit": bytes(bit), "empty": b""}[change])
    message = refusal(mirror, same)
    assert message.startswith(f"{cached}: has changed since it was first checked (sha256 ")
    assert "delete it and its .sha256 to download it again" in message
    assert len(mirror.requests) == 1

    cached.unlink()  # without the pin: that of a file that is gone does not matter
    mirror.offer(row, pkl(other))
    assert same(get_model("resnet20_cifar", pretrained=True), other)
    assert same(get_model("resnet20_cifar", pretrained=True), other)
    assert len(mirror.requests) == 2


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_digits_that_fit_give_no_warning(
    algorithm, mirror, row, known, random_state, pkl, same, caplog
):
    data = pkl(random_state)
    row = dataclasses.replace(row, digest_prefix=hashlib.new(algorithm, data).hexdigest()[:8])
    known(row)
    mirror.offer(row, data)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert caplog.messages == []


@pytest.fixture
def sure(row, known):
    """Makes the row's publisher state that ``data`` has the digits of its name."""

    def sure(digits):
        changed = dataclasses.replace(row, digest_prefix=digits, digest_is_sha256=True)
        known(changed)
        return changed

    return sure


def test_digits_that_are_the_sha256s_give_no_warning(mirror, sure, random_state, pkl, same, caplog):
    data = pkl(random_state)
    mirror.offer(sure(sha256(data)[:8]), data)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert caplog.messages == []


@pytest.mark.parametrize("digits", ["5a5a5a5a", "md5", "end"])
def test_a_file_without_the_sha256_that_its_publisher_states_is_refused(
    digits, mirror, sure, random_state, pkl, same, caplog
):
    data = pkl(random_state)
    digest = sha256(data)
    digits = {"md5": hashlib.md5(data).hexdigest()[:8], "end": digest[-8:]}.get(digits, digits)
    mirror.offer(sure(digits), data)
    assert refusal(mirror, same) == (
        f"{mirror.url}{URL}: not the weights of resnet20_cifar_test: its sha256 begins with "
        f"{digest[:8]}, not with {digits}, as its published name says"
    )
    assert mirror.cached == [] and caplog.messages == []


def test_what_megengines_hub_has_fetched_needs_the_stated_sha256_too(
    mirror, sure, cached, random_state, pkl, same
):
    cached.parent.mkdir(parents=True)
    cached.write_bytes(pkl(random_state))
    sure("5a5a5a5a")
    message = refusal(mirror, same)
    assert message.startswith(f"{cached}: not the weights of resnet20_cifar_test: its sha256 beg")
    assert message.endswith("; delete it to download it again")
    assert mirror.cached == [cached.name] and mirror.requests == []


def test_another_number_of_classes_starts_a_new_classifier_and_says_so_once(
    mirror, row, cached, random_state, pkl, caplog
):
    mirror.offer(row, pkl(random_state))
    model = get_model("resnet20_cifar", pretrained=True, num_classes=7)
    state = model.state_dict()
    assert state["fc.weight"].shape == (7, 64) and state["fc.bias"].shape == (7,)
    assert np.abs(state["fc.weight"]).max() <= 1 / 8  # as drawn, not as loaded
    for name in random_state.keys() - {"fc.weight", "fc.bias"}:
        assert np.array_equal(state[name], random_state[name])
    origin, head = caplog.messages
    assert "origin" in origin
    assert head == f"{cached}: has 10 classes; the classifier starts anew with 7"


URL = "/models/weights/resnet20_cifar_test_91250_5a5a5a5a.pkl"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(404), "HTTP status 404; fetch it elsewhere and give its path instead, or set"),
        (status(500), "HTTP status 500; "),
        (broken_off(b"\x80\x04" * 1000, length=5000), "(the connection )?broke off"),
        (broken_off(b"", length=5000), "(the connection )?broke off"),
    ],
    ids=["404", "500", "truncated", "nothing"],
)
def test_a_download_that_fails_is_refused(answer, reason, mirror, row, same):
    mirror.offer(row, answer)
    assert re.match(f"{mirror.url}{URL}: {reason}", refusal(mirror, same, DownloadError))
    assert mirror.requests == [URL]


def test_no_server(mirror, row, same, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", url)
        assert refusal(mirror, same, DownloadError).startswith(f"{url}{URL}: no connection; ")


@pytest.mark.parametrize(
    "mirror_url", ["127.0.0.1/no-scheme", "http://", "file:///tmp", "http://["]
)
def test_a_mirror_that_is_no_address(mirror_url, mirror, row, same, monkeypatch):
    monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", mirror_url)
    assert "; fetch it elsewhere" in refusal(mirror, same, DownloadError)


def test_a_certificate_that_is_not_trusted(mirror, row, random_state, pkl, same, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with Server(make_certificate(mirror.cache.parents[1], "weights.example.org")) as server:
        server.answers[URL] = whole(pkl(random_state))
        monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", server.url)
        message = refusal(mirror, same, DownloadError)
        assert message.startswith(f"{server.url}{URL}: no secure connection, such as for a cert")
        assert server.requests == []


class Command:
    """A pickle that runs a command when it is loaded as Python loads it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_foreign_files_are_refused(mirror, row, random_state, pkl, same, tmp_path):
    marker = tmp_path / "marker"
    good = pkl(random_state)
    broken = dict(random_state, **{"bn1.weight": random_state["bn1.weight"] * np.nan})
    damaged = "cannot be read as a MegEngine weight file: "
    command = pickle.dumps(dict(random_state, evil=Command(f"touch {shlex.quote(str(marker))}")), 4)
    cases = {
        # A short file that its server takes for whole.
        "short": (good[:-5000], damaged),
        "no length": (without_length(good[:-5000]), damaged),
        "long": (good + b"\0", damaged),
        "empty": (b"", "is empty"),
        "page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is an HTML page"),
        "command": (command, damaged + "refuses posix.system: it is not data"),
        "other": (
            pkl(get_model("resnet32_cifar").state_dict()),
            "does not fit resnet20_cifar: has layer1.3.bn1.bias, layer1.3.bn1.running_mean, "
            "layer1.3.bn1.running_var and 57 more besides",
        ),
        "NaN": (pkl(broken), "does not fit resnet20_cifar: holds NaN or infinity in bn1.w"),
        "checkpoint": (pkl({"epoch": 1, "state_dict": {}}), "holds no tensors"),
    }
    for case, (answer, reason) in cases.items():
        mirror.offer(row, answer)
        message = refusal(mirror, same)
        start = f"{mirror.url}{URL}: not the weights of resnet20_cifar_test: {reason}"
        assert message.startswith(start), case
        assert ".part" not in message
        assert mirror.cached == []
    assert not marker.exists()
    pickle.loads(command)
    assert marker.exists()  # so the command would have worked
    assert mirror.requests == [URL] * len(cases)
    mirror.offer(row, good)  # and nothing of all this stands in the way
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)


def test_nothing_is_fetched_for_a_network_that_is_built_otherwise(mirror, row, pkl, random_state):
    """And what has been fetched is not blamed for it."""
    mirror.offer(row, pkl(random_state))
    for _ in range(2):
        requests = list(mirror.requests)
        with pytest.raises(UsageError) as caught:
            get_model("resnet20_cifar", pretrained=True, in_channels=1)
        assert str(caught.value).startswith("resnet20_cifar_test: weights of resnet20_cifar as it")
        assert "in_channels" in str(caught.value) and "leave that out" in str(caught.value)
        assert mirror.requests == requests
        get_model("resnet20_cifar", pretrained=True, num_classes=3, drop_path=0.1)


def test_an_endless_stream_is_cut_off(mirror, row, same):
    sent = []
    mirror.offer(row, endless(bytes(1 << 20), sent))
    assert "bytes, not the expected weights" in refusal(mirror, same)
    assert sum(sent) < 100 << 20


@pytest.mark.parametrize("length", ["many", "-5", "\u00b2", ""])
def test_a_length_that_is_no_number_is_as_none(length, mirror, row, random_state, pkl, same):
    mirror.offer(row, whole(pkl(random_state), Content_Length=length))
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)


def test_a_length_that_is_too_small_hides_nothing(mirror, row, random_state, pkl, same):
    mirror.offer(row, broken_off(pkl(random_state), length=1000))
    assert "cannot be read" in refusal(mirror, same)


def test_a_cache_that_cannot_be_written(mirror, row, random_state, pkl, same, monkeypatch):
    mirror.offer(row, pkl(random_state))
    in_the_way = mirror.cache.parents[1] / "file"
    in_the_way.touch()
    monkeypatch.setenv("MGE_HOME", str(in_the_way))
    message = refusal(mirror, same, DownloadError)
    assert message.startswith(f"{in_the_way}/serialized/") and "; set MGE_HOME to" in message
    assert row.url in message
    assert mirror.requests == []


def test_what_a_killed_download_has_left_is_no_obstacle(
    mirror, row, cached, random_state, pkl, same
):
    mirror.cache.mkdir(parents=True)
    cached.with_name(cached.name + ".part").write_bytes(bytes(5_000_000))
    mirror.offer(row, pkl(random_state))
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert mirror.cached == [cached.name, cached.name + ".sha256"]


def test_interrupted_by_the_user(mirror, row, random_state, pkl, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    mirror.offer(row, pkl(random_state))
    monkeypatch.setattr("official.vision.classification.zoo.trained.load_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        get_model("resnet20_cifar", pretrained=True)
    assert len(mirror.requests) == 1 and mirror.cached == []
