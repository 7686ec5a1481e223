"""What a file is that holds no weights as we read them, and the way out.

Only what a copy could mend, an HTML page or a file of zeros, is to be downloaded again.
"""

import codecs
import json
from typing import NamedTuple

_SAFE = "save the state dict in the framework it is from, with torch.save or as .safetensors"


class Kind(NamedTuple):
    """For a message: "is {found}; {expected}. {way_out}."."""

    found: str
    way_out: str


# How files start, what to call them, and the way out.
_STARTS = (
    (b"\x1f\x8b", "compressed with gzip", "Unpack it with gunzip"),
    (b"\xfd7zXZ\x00", "compressed with xz", "Unpack it with unxz"),
    (b"BZh", "compressed with bzip2", "Unpack it with bunzip2"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it"),
    (b"Rar!", "a RAR archive", "Unpack it"),
    (b"\x93NUMPY", "one array of NumPy", f"It has no names: {_SAFE}"),
    (b"\x89PNG", "a PNG image", "Check that it is the right file"),
    (b"\xff\xd8\xff", "a JPEG image", "Check that it is the right file"),
    (b"%PDF", "a PDF document", "Check that it is the right file"),
    (b"mgb0001", "a traced network of MegEngine (.mge)", "Give the weights it was made from"),
    (b"mgbtest0", "a traced network of MegEngine (.mge)", "Give the weights it was made from"),
)


def kind_of(head: bytes) -> Kind:
    """What a file that starts with ``head``, its first 512 bytes, seems to be."""
    for start, found, way_out in _STARTS:
        if head.startswith(start):
            return Kind(found, way_out)
    if b"mge_version" in head or b"mgv2" in head[:16] or b"mMGV" in head[:16]:
        return Kind("a traced network of MegEngine (.mge)", "Give the weights it was made from")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", "Unpack it with tar xf")
    if head[:1] == b"\x08" and (b"onnx" in head.lower() or b"pytorch" in head[:32]):
        return Kind("an ONNX network, a program", f"ONNX is not read: {_SAFE}")
    return _of_text(head)


def _of_text(head: bytes) -> Kind:
    """A failed download is often a page."""
    again = "Download it again"
    html = b"<html" in head.lower() or b"<!doctype html" in head.lower()
    try:
        # Incremental, for the last character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not "".join(text.split()).isprintable():
        unknown = f"of an unknown format (its first bytes are {head[:8].hex(' ')})"
        return Kind("an HTML page" if html else unknown, again)
    shown = f"text that starts with {text.splitlines()[0][:60]!r}"
    if html:
        return Kind(f"an HTML page that starts with {text.splitlines()[0][:60]!r}", again)
    if text.startswith("version https://git-lfs"):
        return Kind(f"a pointer of Git LFS, {shown}", "Fetch the file itself with git lfs pull")
    if text.startswith("{"):
        return Kind(f"JSON, {shown}", _way_out_of_json(text))
    return Kind(shown, again)


def _way_out_of_json(text: str) -> str:
    if '"weight_map"' in text or '"total_size"' in text:
        return "It is the index of several files; give one that holds the whole network"
    try:
        json.loads(text)
    except ValueError:  # it goes on after the head
        return "Give the weights it belongs to"
    return "Download it again"
