"""Weights by their address: ``https://…`` and ``hf://owner/name``, of the Hugging Face hub.

They are fetched with the care that published rows are: to a temporary file, within a size, looked
into, and renamed; their sha256 is pinned beside them, and a file that changes later is refused.
Who knows the sha256 writes ``#sha256=…`` after the address. What breaks off is gone on with.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple, Tuple
from urllib.parse import quote, unquote, urlsplit

from megengine.hub.hub import _get_megengine_home

from official.private_folder import private_folder

from ..errors import DownloadError, UsageError, WeightsError
from ..readers import MAX_BYTES, open_weights
from .beside import CONFIG, PREPROCESSOR
from .beside import MAX_BYTES as MAX_CONFIG_BYTES
from .download import compare_with_pin, file_digest, is_there, pin, pin_path, reserved, save
from .transfer import Transfer, TransferError, reason, without_password

ENDPOINT = "HF_ENDPOINT"  # in place of https://huggingface.co, as for its own tools
# What is taken of a repository whose file is not named, the first that is there.
HUB_FILES = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")

_SCHEMES = ("https://", "http://", "hf://")
_DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")
_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/(.+))?")
_HUB_PAGE = re.compile(r"/([\w.-]+/[\w.-]+)/(?:blob|resolve)/([\w.-]+)/(.+)")
_MAX_NAME = 100

logger = logging.getLogger(__name__)


class _Place(NamedTuple):
    """Where a file is, and where it is kept. ``hub``: a repository's, with what lies beside it."""

    url: str
    path: Path
    hub: bool


def is_address(name: str) -> bool:
    """Whether ``name`` is that of a file on a server."""
    return name.lower().startswith(_SCHEMES)


def fetched(address: str, say: bool = True) -> Path:
    """The file behind an address: as it is kept here, or downloaded at first. Says which it is.

    Raises:
        UsageError: for what is no address.
        DownloadError: when it cannot be fetched.
        WeightsError: when it is no weight file, or another one than it should be.
    """
    address, _, fragment = address.partition("#")
    digest = _DIGEST.fullmatch(fragment)
    if fragment and not digest:
        raise UsageError(f"{without_password(address)}: only #sha256= and 64 digits may follow it")
    wanted = digest[1].lower() if digest else ""
    places = _places(address)
    try:
        place = _first(places, wanted)
        compare_with_pin(place.path)
        sha256 = pin_path(place.path).read_text(encoding="ascii").strip()
    except OSError as error:
        way_out = "set MGE_HOME to a folder that can be written"
        raise DownloadError(f"{error.filename or address}: {reason(error)}; {way_out}") from None
    shown = without_password(place.url)
    if wanted not in ("", sha256):
        raise WeightsError(f"{shown}: its sha256 is {sha256}, not {wanted}; {place.path} is kept")
    if say and not wanted and place.url.startswith("http:"):
        logger.warning("%s: came unencrypted; #sha256= after it would say what is expected", shown)
    if say:
        logger.warning("%s: takes %s, sha256 %s", shown, place.path, sha256)
    return place.path


def _places(address: str) -> Tuple[_Place, ...]:
    """Where the file may be: several for a repository whose file is not named."""
    endpoint = os.environ.get(ENDPOINT, "https://huggingface.co").rstrip("/")
    named = None
    if address.lower().startswith("hf://"):
        named = _HUB.fullmatch(unquote(address[len("hf://") :]).rstrip("/"))
        if named is None or ".." in address:
            raise UsageError(f"{address}: expected hf://owner/name, or hf://owner/name/file")
        repository, revision, file = named[1], named[2] or "main", named[3]
    elif address.startswith(endpoint + "/"):  # its page of a file, too
        named = _HUB_PAGE.fullmatch(unquote(urlsplit(address[len(endpoint) :]).path))
        repository, revision, file = named.groups() if named else ("", "", "")
    if named is None:
        folder = _home() / hashlib.sha256(address.encode()).hexdigest()[:16]
        return (_Place(address, folder / _name(urlsplit(address).path), False),)
    base = f"{endpoint}/{repository}/resolve/{quote(revision, safe='')}/"
    inner, _, _ = (file or "").rpartition("/")
    base += quote(inner) + "/" * bool(inner)
    files = [file.rpartition("/")[2]] if file else HUB_FILES
    kept = _home() / hashlib.sha256(base.encode()).hexdigest()[:16]
    return tuple(_Place(base + quote(each), kept / _name(each), True) for each in files)


def _home() -> Path:
    return Path(_get_megengine_home()) / "addresses"


def _name(path: str) -> str:
    """A file's name that is one here, too."""
    name = re.sub(r"[^\w.-]", "_", unquote(path).rpartition("/")[2])[-_MAX_NAME:].lstrip(".")
    return name or "weights"


def _first(places: Tuple[_Place, ...], wanted: str) -> _Place:
    """The first of these files that there is, and that is here then."""
    for place in places:
        if is_there(place.path) and is_there(pin_path(place.path)):
            return place
    for place in places:
        folder, problem = private_folder(str(place.path.parent), "resnet_weights")
        if problem:
            logger.warning("%s; weights are kept in %s for now", problem, folder)
            place = place._replace(path=Path(folder) / place.path.name)
        if _fill(place, wanted):
            return place
    names = ", ".join(place.path.name for place in places)
    shown = without_password(places[0].url)
    found = "there is no such file" if len(places) == 1 else f"there is none of {names}"
    raise DownloadError(f"{shown}: {found} (HTTP status 404); name the file itself")


def _fill(place: _Place, wanted: str) -> bool:
    """Fetch a file and its neighbours; False if there is none. Last of all it gets its name."""
    shown, part = without_password(place.url), place.path.with_name(place.path.name + ".part")
    with reserved(part, keep=True) as file:
        if is_there(place.path) and is_there(pin_path(place.path)):  # by another process, meanwhile
            return True
        if not _download(place.url, file, MAX_BYTES, part):
            part.unlink()
            return False
        try:
            sha256 = file_digest(part, "sha256")
            if wanted not in ("", sha256):
                raise WeightsError(f"its sha256 is {sha256}, not {wanted}")
            open_weights(part)
        except WeightsError as error:
            part.unlink()
            words = str(error)
            words = words[len(f"{part}: ") :] if words.startswith(f"{part}: ") else words
            raise WeightsError(f"{shown}: {words}") from None
        if place.hub:
            for name in (CONFIG, PREPROCESSOR):
                _fetch_neighbour(place, name)
        pin(place.path, sha256)
        part.replace(place.path)
    return True


def _fetch_neighbour(place: _Place, name: str) -> None:
    """One of the small files beside the weights, if it is there."""
    path = place.path.with_name(name)
    part = path.with_name(name + ".part")
    with reserved(part) as file:
        url = place.url.rpartition("/")[0] + "/" + name
        if _download(url, file, MAX_CONFIG_BYTES, part):
            part.replace(path)


def _download(url: str, file: BinaryIO, max_bytes: int, part: Path) -> bool:
    """The rest of a file after what ``file`` has of it; False if the server has no such file."""
    shown = without_password(url)
    note = part.with_name(part.name + ".from")  # what the server said of it
    start = file.tell()
    validator = _noted(note) if start else ""
    try:
        with contextlib.closing(Transfer(url, start, validator)) as transfer:
            if transfer.status == 404:
                return False
            if transfer.status not in (200, 206):
                raise DownloadError(f"{shown}: HTTP status {transfer.status}; is it public?")
            if transfer.status == 200:
                start = file.seek(0)
                file.truncate()
            note.write_text(json.dumps(transfer.validator), encoding="utf-8")
            received = save(transfer, file, max_bytes - start, part.stem)
    except TransferError as error:
        file.flush()
        raise DownloadError(f"{shown}: {error}; try again: it goes on where it broke off") from None
    if start + received > max_bytes:
        part.unlink()
        note.unlink()
        raise WeightsError(f"{shown}: longer than {max_bytes:,} bytes, so no weights of a ResNet")
    if transfer.length and received != transfer.length:
        file.flush()
        raise DownloadError(
            f"{shown}: broke off after {received:,} of {transfer.length:,} bytes; try again: it "
            "goes on there"
        )
    note.unlink()
    return True


def _noted(note: Path) -> str:
    try:
        found = json.loads(note.read_bytes()[:1000])
    except (OSError, ValueError):
        return ""
    return found if isinstance(found, str) and found.isprintable() else ""
