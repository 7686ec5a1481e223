"""The word that the processes of a job share, and where it comes from."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from official.vision.classification.distributed import secret as module
from official.vision.classification.distributed.secret import is_signed, shared_secret, sign
from official.vision.classification.errors import UsageError

WORD = "correct horse battery"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(module.VARIABLE, raising=False)
    return tmp_path / "home"


def test_a_signature_is_the_hmac_of_rfc_2104():
    """By its definition, from plain SHA-256."""
    key, body = b"k" * 16, b"<methodCall/>"
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + body).digest()
    expected = hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner).hexdigest()
    assert sign(key.decode(), body) == expected == hmac.new(key, body, "sha256").hexdigest()
    assert is_signed(key.decode(), body, expected)
    for signature in ("", "é", expected[:-1], expected.upper(), expected[::-1]):
        assert not is_signed(key.decode(), body, signature)
    assert not is_signed(key.decode(), body + b" ", expected)
    assert not is_signed("another", body, expected)


def test_it_is_made_once_and_for_its_owner_alone(home):
    first = shared_secret()
    assert first == shared_secret() and len(first) == 32
    assert stat.S_IMODE((home / "dist_secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["dist_secret"]


def test_nodes_that_start_at_once_get_the_same(home):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: shared_secret(), range(32)))) == 1


def test_a_file_comes_before_the_variable_and_the_variable_before_the_home(
    home, tmp_path, monkeypatch
):
    monkeypatch.setenv(module.VARIABLE, f" {WORD}\n")
    assert shared_secret() == WORD
    assert not home.exists()
    path = tmp_path / "word"
    path.write_text(f"{WORD} of the file\n")
    path.chmod(0o600)
    assert shared_secret(str(path)) == f"{WORD} of the file"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("short", 0o600, "expected 16 to 200 printable"),
        ("", 0o600, "expected 16 to 200 printable"),
        ("x" * 5000, 0o600, "expected 16 to 200 printable"),
        ("caf\u00e9" * 5, 0o600, "expected 16 to 200 printable"),
        (f"{WORD}\n{WORD}", 0o600, "expected 16 to 200 printable"),
        (WORD, 0o644, "can be read by others"),
        (WORD, 0o622, "can be written by others"),
        (None, 0, "no such file"),
    ],
)
def test_a_file_that_is_no_secret_is_named(tmp_path, text, mode, said):
    path = tmp_path / "word"
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
    with pytest.raises(UsageError, match=said) as caught:
        shared_secret(str(path))
    assert str(path) in str(caught.value) and "--dist-secret" in str(caught.value)


@pytest.mark.parametrize("kind", ["link to nothing", "open to others", "folder"])
def test_what_lies_in_the_home_is_looked_at_too(home, kind):
    home.mkdir()
    path = home / "dist_secret"
    if kind == "link to nothing":
        path.symlink_to("/nowhere/at/all")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("planted, and known to others")
        path.chmod(0o666)
    with pytest.raises(UsageError, match="dist_secret"):
        shared_secret()


def test_a_home_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(UsageError, match="by --dist-secret"):
        shared_secret()


def test_a_variable_that_is_too_short_is_named(monkeypatch):
    monkeypatch.setenv(module.VARIABLE, "1234")
    with pytest.raises(UsageError, match="RESNET_DIST_SECRET: expected 16 to 200"):
        shared_secret()
