"""What a file is, by its first bytes: its name says nothing that can be relied on."""

from typing import Optional, Tuple

from ...errors import DataError

JPEG, PNG, WEBP, BMP, TIFF, PNM = "JPEG", "PNG", "WebP", "BMP", "TIFF", "PNM"
JPEG2000, GIF, HEIC, AVIF = "JPEG 2000", "GIF", "HEIC", "AVIF"

_CONVERT = "convert it to JPEG or PNG"
_AGAIN = "fetch the file again"

_STARTS = (
    (b"\xff\xd8", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),  # BigTIFF
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"\xff\x4f\xff\x51", JPEG2000),  # a codestream without the boxes
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"BM", BMP),
)
_OTHERS = (  # what people take for images, or find under their names; and the way out
    (b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", _CONVERT),
    (b"\x97JB2\r\n\x1a\n", "a JBIG2 image", _CONVERT),
    (b"\0\0\1\0", "a Windows icon (ICO)", _CONVERT),
    (b"8BPS", "a Photoshop image (PSD)", _CONVERT),
    (b"gimp xcf", "a GIMP image (XCF)", _CONVERT),
    (b"v/1\x01", "an OpenEXR image", _CONVERT),
    (b"#?RADIANCE", "a Radiance HDR image", _CONVERT),
    (b"#?RGBE", "a Radiance HDR image", _CONVERT),
    (b"PF", "a floating-point map (PFM)", _CONVERT),
    (b"Pf", "a floating-point map (PFM)", _CONVERT),
    (b"P7", "a portable arbitrary map (PAM)", _CONVERT),
    (b"\x59\xa6\x6a\x95", "a Sun raster image", _CONVERT),
    (b"DDS ", "a DirectDraw surface (DDS)", _CONVERT),
    (b"qoif", "a QOI image", _CONVERT),
    (b"FUJIFILM", "a camera's raw file", _CONVERT),
    (b"IIRO", "a camera's raw file", _CONVERT),
    (b"IIU\0", "a camera's raw file", _CONVERT),
    (b"%PDF", "a PDF document", "export its page as JPEG or PNG"),
    (b"%!PS", "a PostScript document", "export its page as JPEG or PNG"),
    (b"\0\5\x16\7", "a macOS resource file (._…), not the image itself", "remove it"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the image itself", "git lfs pull"),
    (b"PK\3\4", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x93NUMPY", "an array of numpy", "save it as PNG"),
    (b"\x89HDF", "an HDF5 file", "save its images as PNG"),
    (b"\x1aE\xdf\xa3", "a video", "save its frames as JPEG or PNG"),
)
_BRANDS = {  # of ISO base media files, ISO/IEC 23008-12 and MP4's registry
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), HEIC),
}
_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<h1", b"<center")
_TEXT = (b"<?xml", b"<svg", b"<error", b"{", b"http", b"not found", b"error")


def kind_of(data: bytes) -> str:
    """One of the formats above, which is read.

    Raises:
        DataError: without the file's name, what it is instead and the way out.
    """
    found = next((kind for start, kind in _STARTS if data.startswith(start)), None)
    if found is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = WEBP
    if found is None and data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        found = PNM
    if found is None and data[4:8] == b"ftyp":
        found = _by_brand(data)
    if found is None or (found == BMP and data[14:18] not in _BMP_HEADERS):
        what, way_out = _foreign(data)
        raise DataError(f"{what}; {way_out}")
    return found


_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _by_brand(data: bytes) -> Optional[str]:
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    if {b"mif1", b"msf1"} & set(brands):
        return HEIC
    if b"jp2 " in brands or b"jpx " in brands:
        return None
    what = "a camera's raw file" if b"crx " in brands else "a video"
    way_out = _CONVERT if b"crx " in brands else "save its frames as JPEG or PNG"
    raise DataError(f"{what}, not an image that is read; {way_out}")


def _foreign(data: bytes) -> Tuple[str, str]:
    for start, what, way_out in _OTHERS:
        if data.startswith(start):
            return f"{what}, which is not read", way_out
    if data[:4] == b"RIFF":
        return "a RIFF file such as a video, not an image", _CONVERT
    if data[128:132] == b"DICM":
        return "a DICOM image, which is not read", _CONVERT
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_MARKUP):
        return "not an image but a web page", _AGAIN
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in data[:4096].lower()):
        return "an SVG drawing, which is not read", _CONVERT
    if text.startswith(_TEXT):
        return "not an image but text", _AGAIN
    if not any(data[:4096]):
        return "not an image: it begins with zeros", _AGAIN
    return "not an image of a format that is read (JPEG, PNG, WebP, BMP, TIFF, PNM, GIF)", _AGAIN
