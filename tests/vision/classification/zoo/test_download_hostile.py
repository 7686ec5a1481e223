"""Downloads from servers and into caches that mean no good, and the digests of the rows."""

import dataclasses
import hashlib
import os
import time

import numpy as np
import pytest
from safetensors.numpy import save

from official.vision.classification.errors import WeightsError
from official.vision.classification.zoo import ROWS, fill_pretrained, get_model, rows, transfer
from official.vision.classification.zoo.rows import BY_NAME
from official.vision.classification.zoo.transfer import without_password
from tests.oracles import fixtures, seeded
from tests.servers import Server, make_certificate, redirect, trickle, whole

URL = "/models/weights/resnet20_cifar_test_91250_5a5a5a5a.pkl"


def refusal(same):
    """What ``pretrained=True`` says; the network stays as it was."""
    model = get_model("resnet20_cifar")
    before = model.state_dict()
    with pytest.raises(WeightsError) as caught:
        fill_pretrained(model, "resnet20_cifar", True)
    assert same(model, before)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("header", [False, True], ids=["content", "header"])
def test_a_server_that_sends_a_byte_now_and_then(
    header, mirror, row, random_state, pkl, same, monkeypatch
):
    monkeypatch.setattr(transfer, "PATIENCE", 1.0)
    mirror.offer(row, trickle(pkl(random_state), header))
    start = time.monotonic()
    message = refusal(same)
    assert time.monotonic() - start < 5
    assert message.startswith(
        f"{mirror.url}{URL}: less than 65536 bytes in 1 seconds; fetch it els"
    )
    assert mirror.cached == []


@pytest.fixture
def secure(mirror, monkeypatch):
    """A server for https whose certificate is trusted, in place of the mirror."""
    certificate = make_certificate(mirror.cache.parents[1], "localhost")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Server(certificate) as server:
        server.url = server.url.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", server.url)
        yield server


@pytest.mark.parametrize("scheme", ["http", "HTTP", "Http"])
def test_a_secure_server_leads_to_none_that_is_not(
    scheme, secure, mirror, row, random_state, pkl, same
):
    data = pkl(random_state)
    mirror.offer(row, data)
    secure.answers[URL] = redirect(mirror.url.replace("http", scheme) + URL)
    message = refusal(same)
    assert message.startswith(f"{secure.url}{URL}: leads from https to http, where anybody could")
    assert mirror.requests == [] and mirror.cached == []
    secure.answers[URL] = redirect("/elsewhere")  # which is as secure
    secure.answers["/elsewhere"] = whole(data)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)


def test_a_mirror_without_https_may_lead_on(mirror, row, random_state, pkl, same):
    mirror.answers["/elsewhere"] = whole(pkl(random_state))
    mirror.offer(row, redirect("/elsewhere"))
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)


@pytest.mark.parametrize("kind", ["404", "foreign", "no server", "no address", "broken"])
def test_a_mirrors_password_is_not_shown(kind, mirror, row, random_state, pkl, same, monkeypatch):
    address = mirror.url.replace("://", "://me:se@cret/word@")
    address = {
        "no server": "http://me:secret@127.0.0.1:9",
        "no address": "http://me:secret@[",
        "broken": "http://me:secret@127.0.0.1:none",
    }.get(kind, mirror.url.replace("://", "://me:secret@"))
    monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", address)
    if kind == "foreign":
        mirror.offer(row, b"no weights")
    message = refusal(same)
    assert "secret" not in message and "://***@" in message


def test_it_is_used_though(mirror, row, random_state, pkl, same, monkeypatch):
    given = []

    def answer(handler):
        given.append(handler.headers["Authorization"])
        whole(pkl(random_state))(handler)

    mirror.offer(row, answer)
    monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", mirror.url.replace("://", "://me:secret@"))
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert given == ["Basic bWU6c2VjcmV0"]
    assert (
        without_password("see https://a:b@c/d, http://e@f") == "see https://***@c/d, http://***@f"
    )


@pytest.mark.parametrize("suffix", [".part", ".sha256.part"])
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_is_no_file_of_the_cache_is_not_written(
    kind, suffix, mirror, row, cached, random_state, pkl, same, tmp_path
):
    mirror.offer(row, pkl(random_state))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    obstacle = cached.with_name(cached.name + suffix)
    obstacle.parent.mkdir(parents=True)
    make = {
        "link": lambda: obstacle.symlink_to(precious),
        "hard link": lambda: os.link(precious, obstacle),
        "pipe": lambda: os.mkfifo(obstacle),
        "folder": obstacle.mkdir,
    }
    make[kind]()
    message = refusal(same)
    assert message.startswith(f"{obstacle}: ") or kind == "folder"
    assert "delete it" in message or kind == "folder"
    assert precious.read_text() == "precious"
    assert mirror.cached == [obstacle.name]


@pytest.mark.parametrize("kind", ["endless", "pipe", "large", "link"])
def test_a_pin_is_read_only_so_far(kind, mirror, row, cached, random_state, pkl, same, tmp_path):
    data = pkl(random_state)
    mirror.offer(row, data)
    get_model("resnet20_cifar", pretrained=True)
    pin = cached.with_name(cached.name + ".sha256")
    content = pin.read_text()
    pin.unlink()
    if kind == "endless":
        pin.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(pin)
    elif kind == "large":
        with pin.open("wb") as file:
            file.truncate(1 << 40)  # 1 TB of zeros that take no room
    else:
        (tmp_path / "pin").write_text(content)
        pin.symlink_to(tmp_path / "pin")
    message = refusal(same)
    if kind == "large":
        assert message.startswith(f"{cached}: has changed since it was first checked")
    else:
        assert message == f"{pin}: is a link or a pipe, not a file of its own; delete it"
    pin.unlink()
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_the_cached_file_is_one_of_its_own(
    kind, mirror, row, cached, random_state, pkl, same, tmp_path
):
    mirror.offer(row, pkl(random_state))
    get_model("resnet20_cifar", pretrained=True)
    cached.rename(tmp_path / "elsewhere")
    if kind == "link":
        cached.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(cached)
    assert "is a link or a pipe, not a file of its own" in refusal(same)


def test_a_file_without_a_digest_is_told_and_pinned(
    mirror, row, known, cached, random_state, pkl, same, caplog
):
    known(dataclasses.replace(row, digest_prefix="", digest_is_sha256=True))
    data = pkl(random_state)
    mirror.offer(row, data)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    (warning,) = caplog.messages
    digest = hashlib.sha256(data).hexdigest()
    assert warning == (
        "resnet20_cifar_test: every tensor fits, but the origin could not be verified: a test "
        f"states no digest of it; sha256 {digest} is pinned from now on"
    )
    assert cached.with_name(cached.name + ".sha256").read_text() == digest + "\n"
    caplog.clear()
    cached.write_bytes(data + b"\0")
    assert "has changed since it was first checked" in refusal(same)


def test_a_whole_digest(mirror, row, known, random_state, pkl, same, caplog):
    data = pkl(random_state)
    digest = hashlib.sha256(data).hexdigest()
    mirror.offer(row, data)
    last = {"0": "1"}.get(digest[-1], "0")
    known(dataclasses.replace(row, digest_prefix=digest[:-1] + last, digest_is_sha256=True))
    assert refusal(same).endswith(f"with {digest[:8]}, as a test states")
    assert mirror.cached == []
    known(dataclasses.replace(row, digest_prefix=digest, digest_is_sha256=True))
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert caplog.messages == []


def test_a_licence_is_said_whenever_it_forbids_something(
    mirror, row, known, random_state, pkl, caplog
):
    data = pkl(random_state)
    digits = hashlib.sha256(data).hexdigest()
    licensed = dataclasses.replace(row, digest_prefix=digits, licence="CC-BY-NC-4.0")
    known(licensed)
    mirror.offer(row, data)
    for _ in range(2):  # downloaded, and from the cache
        caplog.clear()
        get_model("resnet20_cifar", pretrained=True)
        (line,) = caplog.messages
        assert line.endswith("licence of these weights, CC-BY-NC-4.0, forbids commercial use")


TABLES = [row for row in ROWS if row.source in ("timm", "torchvision")]


@pytest.mark.parametrize("published", TABLES, ids=lambda row: row.name)
def test_every_row_takes_its_file_and_no_other(
    published, mirror, random_state, same, monkeypatch, caplog
):
    """A small network stands in for the row's own; address, digits and licence are the row's."""
    good = save(random_state)
    bad = save({name: value + 1 for name, value in random_state.items()})
    digits = hashlib.sha256(good).hexdigest()[: len(published.digest_prefix)]
    row = dataclasses.replace(
        published, arch="resnet20_cifar", num_classes=10, params=269_722, digest_prefix=digits
    )
    monkeypatch.setattr(rows, "ROWS", (row,))
    monkeypatch.setitem(BY_NAME, row.name, row)
    path = "/" + row.url.split("/", 3)[3]
    mirror.answers[path] = whole(bad)
    if digits:
        assert "not the weights of" in refusal(same) and mirror.cached == []
    else:  # there is nothing to tell them apart by
        mirror.answers[path] = whole(bad + b"\0")
        assert "not the weights of" in refusal(same) and mirror.cached == []
    mirror.answers[path] = whole(good)
    assert same(get_model(row.name, pretrained=True), random_state)
    assert mirror.requests == [path] * 2
    assert ["origin could not be verified" in message for message in caplog.messages] == (
        [True] * (not digits) + [False] * (not row.commercial)
    )


# A row, and the fixture with the names and shapes of its network as timm or torchvision has it.
REAL = {
    "resnet10t.c3_in1k": "timm_resnet10t",
    "resnetv2_18.ra4_e3600_r224_in1k": "timm_resnetv2_18",
    "resnetv2_18d.ra4_e3600_r224_in1k": "timm_resnetv2_18d",
    "resnet18.tv_in1k": "torchvision_resnet18",
}


@pytest.mark.parametrize("name", REAL)
def test_a_row_of_each_kind_with_its_own_network(name, mirror, monkeypatch, same):
    shapes = fixtures.load(REAL[name]).shapes
    shapes = {key: [1000 if size == 20 else size for size in shapes[key]] for key in shapes}
    tensors = seeded.tensors(shapes)
    data = save({key: np.ascontiguousarray(value) for key, value in tensors.items()})
    digits = hashlib.sha256(data).hexdigest()[: len(BY_NAME[name].digest_prefix)]
    row = dataclasses.replace(BY_NAME[name], digest_prefix=digits)
    monkeypatch.setitem(BY_NAME, name, row)
    mirror.answers["/" + row.url.split("/", 3)[3]] = whole(data)
    model = get_model(name, pretrained=True)
    head = next(value for key, value in tensors.items() if key in ("fc.weight", "head.fc.weight"))
    assert np.array_equal(model.fc.weight.numpy(), head.reshape(1000, -1))
    assert model.pretrained_config.preprocess == row.preprocess
    assert len(model.pretrained_config.classes) == 1000
