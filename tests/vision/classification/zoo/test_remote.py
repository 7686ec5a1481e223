"""Weights by their address, from a server of this machine."""

import hashlib
import json
import stat

import pytest
from safetensors.numpy import save

from official.vision.classification.errors import DownloadError, UsageError, WeightsError
from official.vision.classification.zoo import remote
from official.vision.classification.zoo.remote import fetched
from official.vision.classification.zoo.trained import NetworkConfig, look_up
from official.vision.classification.zoo.transfer import PIECE
from tests.servers import Server, broken_off, endless, make_certificate, redirect, status, whole


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("MGE_HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "*")
    return home / "addresses"


@pytest.fixture
def server(home, monkeypatch):
    with Server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        yield server


@pytest.fixture(scope="module")
def data(random_state):
    return save(random_state)


@pytest.fixture(scope="module")
def digest(data):
    return hashlib.sha256(data).hexdigest()


def kept(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_an_address_is_fetched_once_and_said(server, home, data, digest, caplog):
    server.answers["/w/r20.safetensors?x=1"] = whole(data)
    address = f"{server.url}/w/r20.safetensors?x=1"
    for _ in range(2):
        source = look_up(NetworkConfig(model=address))
        assert source.config.arch == "resnet20_cifar"
    assert server.requests == ["/w/r20.safetensors?x=1"]
    path = source.weights.path
    assert path.name == "r20.safetensors" and path.read_bytes() == data
    assert f"{address}: takes {path}, sha256 {digest}" in caplog.text
    assert "came unencrypted" in caplog.text
    assert kept(home) == ["r20.safetensors", "r20.safetensors.sha256"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_digest_is_compared(server, home, data, digest, caplog):
    server.answers["/w.pth"] = whole(data)
    wrong = "0" * 64
    with pytest.raises(WeightsError, match=f"its sha256 is {digest}, not {wrong}"):
        fetched(f"{server.url}/w.pth#sha256={wrong}")
    assert kept(home) == []
    path = fetched(f"{server.url}/w.pth#sha256={digest.upper()}")
    assert "unencrypted" not in caplog.text
    with pytest.raises(WeightsError, match=f"not {wrong}; {path} is kept"):
        fetched(f"{server.url}/w.pth#sha256={wrong}")
    for fragment in ("sha256=12", "md5=0", "x"):
        with pytest.raises(UsageError, match="only #sha256= and 64 digits may follow it"):
            fetched(f"{server.url}/w.pth#{fragment}")


def test_a_file_that_changes_later_is_refused(server, home, data):
    server.answers["/w.pth"] = whole(data)
    path = fetched(f"{server.url}/w.pth")
    path.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="has changed since it was first checked"):
        fetched(f"{server.url}/w.pth")


def resumable(data, tag, asked):
    """Half of ``data`` at first; the rest to whoever asks for it with the same tag."""

    def answer(handler):
        wanted = handler.headers.get("Range", "")
        asked.append((wanted, handler.headers.get("If-Range", "")))
        start = int(wanted[len("bytes=") : -1]) if wanted else 0
        handler.send_response(206 if wanted else 200)
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(data) - start))
        if wanted:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start:] if wanted else data[: len(data) // 2])

    return answer


def test_what_breaks_off_is_gone_on_with(server, home, data, digest):
    asked = []
    server.answers["/w.pth"] = resumable(data, '"v1"', asked)
    address = f"{server.url}/w.pth#sha256={digest}"
    with pytest.raises(DownloadError, match="try again: it goes on"):
        fetched(address)
    assert kept(home) == ["w.pth.part", "w.pth.part.from"]
    assert fetched(address).read_bytes() == data
    whole_pieces = len(data) // 2 // PIECE * PIECE
    assert asked == [("", ""), (f"bytes={whole_pieces}-", '"v1"')] and whole_pieces > 0
    assert kept(home) == ["w.pth", "w.pth.sha256"]


def test_another_file_under_the_same_address_is_fetched_from_its_start(server, home, data):
    server.answers["/w.pth"] = broken_off(b"x" * 1000, len(data))
    with pytest.raises(DownloadError):
        fetched(f"{server.url}/w.pth")
    server.answers["/w.pth"] = whole(data)
    assert fetched(f"{server.url}/w.pth").read_bytes() == data


REFUSED = {
    "a page": (whole(b"<!doctype html><html>log in</html>"), "is an HTML page"),
    "an error": (status(403), "HTTP status 403; is it public?"),
    "none": (status(404), r"there is no such file \(HTTP status 404\)"),
    "a program": (whole(b"\x80\x04cos\nsystem\n\x8c\x01x\x85R."), "refuses os.system"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_weight_file_is_not_kept(case, server, home):
    server.answers["/w.pth"], reason = REFUSED[case]
    with pytest.raises(WeightsError, match=reason) as caught:
        fetched(f"{server.url}/w.pth")
    assert str(caught.value).startswith(f"{server.url}/w.pth: ")
    assert [name for name in kept(home) if name != "w.pth.part"] == []


def test_no_end(server, home, monkeypatch):
    sent = []
    monkeypatch.setattr(remote, "MAX_BYTES", 1 << 20)
    server.answers["/w.pth"] = endless(bytes(1 << 16), sent)
    with pytest.raises(WeightsError, match="longer than 1,048,576 bytes"):
        fetched(f"{server.url}/w.pth")
    assert kept(home) == [] and sum(sent) < 64 << 20


def test_not_from_https_to_http(home, data, tmp_path, monkeypatch):
    certificate = make_certificate(tmp_path, "localhost")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Server() as plain, Server(certificate) as secure:
        plain.answers["/w"] = whole(data)
        secure.answers["/w"] = redirect(f"{plain.url}/w")
        with pytest.raises(DownloadError, match="leads from https to http"):
            fetched(f"https://localhost:{secure.port}/w")
        secure.answers["/w"] = whole(data)
        assert fetched(f"https://localhost:{secure.port}/w").read_bytes() == data


def test_a_password_is_not_shown(server, home, caplog):
    address = server.url.replace("://", "://user:secret@") + "/w.pth"
    with pytest.raises(DownloadError) as caught:
        fetched(address)
    assert "secret" not in str(caught.value) + caplog.text


CONFIG = {
    "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0, "interpolation": "bicubic"}
}
CONFIG["pretrained_cfg"].update(mean=[0.5] * 3, std=[0.5] * 3)


@pytest.fixture
def hub(server, data):
    """A repository with weights and a configuration."""
    base = "/timm/r20.x/resolve/main/"
    server.answers[base + "pytorch_model.bin"] = whole(data)
    server.answers[base + "config.json"] = whole(json.dumps(CONFIG).encode())
    return server


def test_a_repository_of_the_hub(hub, home, caplog):
    for _ in range(2):
        source = look_up(NetworkConfig(model="hf://timm/r20.x"))
        assert source.config.preprocess.mean == (127.5, 127.5, 127.5)
        assert source.config.preprocess.crop == 32
    base = "/timm/r20.x/resolve/main/"
    names = ("model.safetensors", "pytorch_model.bin", "config.json", "preprocessor_config.json")
    assert hub.requests == [base + name for name in names]
    assert kept(home) == ["config.json", "pytorch_model.bin", "pytorch_model.bin.sha256"]
    assert f"{hub.url}{base}pytorch_model.bin: takes " in caplog.text


def test_a_file_a_revision_and_a_page_of_the_hub(hub, home, data):
    hub.answers["/o/n/resolve/v1.0/sub/w.pth"] = whole(data)
    hub.answers["/o/n/resolve/main/w%20x.pth"] = whole(data)
    assert fetched("hf://o/n@v1.0/sub/w.pth").name == "w.pth"
    assert fetched("hf://o/n/w x.pth").name == "w_x.pth"
    page = fetched(f"{hub.url}/timm/r20.x/blob/main/pytorch_model.bin")
    assert page == fetched("hf://timm/r20.x")


def test_a_repository_without_weights(hub, home):
    with pytest.raises(DownloadError, match="there is none of model.safetensors, pytorch_model"):
        fetched("hf://owner/empty")
    for address in ("hf://", "hf://owner", "hf://o/../n/x"):
        with pytest.raises(UsageError, match="expected hf://owner/name"):
            fetched(address)


def test_a_cache_that_others_can_write_is_not_used(
    server, home, data, caplog, monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server.answers["/w.pth"] = whole(data)
    folder = home / hashlib.sha256(f"{server.url}/w.pth".encode()).hexdigest()[:16]
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    path = fetched(f"{server.url}/w.pth")
    assert path.parent != folder and not list(folder.iterdir())
    assert "can be written by others" in caplog.text
