"""Decoding: each format by the one library that reads all of its kinds rightly.

JPEG by simplejpeg (libjpeg-turbo), which says when it has met damage; PNG, WebP and BMP by OpenCV;
the others by Pillow's reader of that very format, so that no other one ever sees the file. All give
the same pixels for what they share.
"""

import io
import struct
from importlib import import_module
from typing import Any, Callable, Dict, Optional, Tuple

import cv2
import numpy as np

from ...errors import DataError
from . import kinds
from .headers import COMPRESSION, PHOTOMETRIC, PLANES, SAMPLES, Header, still_png

try:
    import simplejpeg
except ImportError:  # through megengine.hub, without requirements.txt: OpenCV, which keeps silent
    simplejpeg = None

MAX_PIXELS = 1 << 27  # 134 million, 400 MB as bytes; cameras reach 100 million
DAMAGED = "a damaged"  # how a remark begins on an image that is used in spite of it
_HARMLESS = ("Invalid SOS parameters", "Unknown Adobe color transform")  # some cameras' habits
_BIT_FIELDS = (3, 6)  # compressions of a BMP
_TO_8 = "convert it to 8 bits yourself if that is not what it holds"

_TURNS = {  # to be seen upright, by EXIF's orientation
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: lambda image: cv2.transpose(image),
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

Decoded = Tuple[np.ndarray, str]  # pixels, and what is to be said of them, or nothing


def check_size(width: int, height: int) -> None:
    """Refuse more pixels than any photograph has, before memory is taken for them."""
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are read; make it smaller"
        )


def decode(kind: str, data: bytes, header: Header) -> Decoded:
    """``(H, W, 3)`` uint8, BGR, upright; and a remark on what was assumed or is wrong.

    Args:
        header: what ``header_of`` says, and ``check_size`` lets pass.

    Raises:
        DataError: without the file's name, when it cannot be decoded.
    """
    return _DECODERS[kind](data, header)


def _jpeg(data: bytes, header: Header) -> Decoded:
    if simplejpeg is None:
        return _opencv(data, header)
    remark = ""
    try:
        image = _turbo(data, strict=True)
    except ValueError as error:
        if not str(error).startswith(_HARMLESS):
            remark = f"{DAMAGED} JPEG image ({error}); what is left of it is used"
        try:
            image = _turbo(data, strict=False)
        except ValueError:  # what it warns of is in the header
            return _opencv(data, header)[0], remark
    except KeyError:  # a subsampling that libjpeg-turbo's simple interface does not know
        return _opencv(data, header)
    if image.shape[2] == 4:
        return _CMYK_JPEG(data, header)[0], remark
    return _upright(image, header), remark


def _upright(image: np.ndarray, header: Header) -> np.ndarray:
    turn = _TURNS.get(header.orientation)
    return turn(image) if turn else image


def _turbo(data: bytes, strict: bool) -> np.ndarray:
    """BGR, or the four channels of a CMYK image."""
    if simplejpeg.decode_jpeg_header(data, strict=False)[2] in ("CMYK", "YCCK"):
        return simplejpeg.decode_jpeg(data, "CMYK", strict=strict)
    return simplejpeg.decode_jpeg(data, "BGR", strict=strict)


def _opencv(data: bytes, header: Header) -> Decoded:
    deep = header.bits > 8
    how = cv2.IMREAD_UNCHANGED if deep else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        image = None
    if image is None:
        raise DataError("the image is damaged or cut short; fetch the file again")
    image, remark = to_bytes(image) if deep else (image, "")
    return _upright(image, header), remark


def _png(data: bytes, header: Header) -> Decoded:
    return _opencv(still_png(data), header)


def _bmp(data: bytes, header: Header) -> Decoded:
    """By OpenCV, but for bit fields: it takes those of 32 bits for BGR, whatever they are."""
    if data[14] < 40 or len(data) < 66 or data[30] not in _BIT_FIELDS or data[28] not in (16, 32):
        return _opencv(data, header)
    bits = data[28]
    start, height = (struct.unpack_from("<i", data, at)[0] for at in (10, 22))
    masks = struct.unpack_from("<III", data, 54)
    row = (header.width * bits + 31) // 32 * 4  # bytes
    size = row * abs(height)
    if start < 66 or not size or not all(masks) or start + size > len(data):
        raise DataError("the image is damaged or cut short; fetch the file again")
    rows = np.frombuffer(data, np.uint8, size, start).reshape(abs(height), row)
    values = rows.view(f"<u{bits // 8}")[:: 1 if height < 0 else -1, : header.width]
    return np.dstack([_field(values, mask) for mask in masks[::-1]]), ""


def _field(values: np.ndarray, mask: int) -> np.ndarray:
    """Some bits of each value as a byte: none set is 0, all of them is 255."""
    lowest = (mask & -mask).bit_length() - 1
    lowest += max((mask >> lowest).bit_length() - 8, 0)
    scale = np.minimum(np.arange(256) * (255 / (mask >> lowest)) + 0.5, 255).astype(np.uint8)
    return cv2.LUT(((values & mask) >> lowest).astype(np.uint8), scale)


def _pillow(module: str, reader: str) -> Callable[[bytes, Header], Decoded]:
    """A decoder by one of Pillow's plug-ins, called by its name."""

    def decode(data: bytes, header: Header) -> Decoded:
        try:
            image = getattr(import_module(f"PIL.{module}"), reader)(io.BytesIO(data))
            check_size(*image.size)
            image.load()
            image = import_module("PIL.ImageOps").exif_transpose(image)
            if image.mode[0] in "IF":  # 16 bits, 32 bits or floating point
                return to_bytes(np.array(image))
            return _swapped(np.array(image.convert("RGB"))), ""
        except DataError:
            raise
        except ImportError:
            raise DataError("needs Pillow to be read; pip install pillow") from None
        except Exception as error:  # a decoder's, of any class
            reason = f" ({error})" if str(error) and len(str(error)) < 80 else ""
            raise DataError(
                f"the image is damaged or cut short{reason}; fetch the file again"
            ) from None

    return decode


_CMYK_JPEG = _pillow("JpegImagePlugin", "JpegImageFile")
_PLAIN_TIFF = _pillow("TiffImagePlugin", "TiffImageFile")
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925)  # the last is LZMA
_WHITE_IS_ZERO, _YCBCR = 0, 6


def _tiff(data: bytes, header: Header) -> Decoded:
    """By OpenCV where samples have more than 8 bits, which Pillow would clip; else by Pillow."""
    tags = dict(header.tags)
    compression = tags.get(COMPRESSION, (1,))[0]
    if compression not in _COMPRESSIONS:
        raise DataError(
            f"a TIFF image in compression {compression}, which is not read; save it with LZW or "
            "without any"
        )
    stored_ycbcr = tags.get(PHOTOMETRIC, (1,))[0] == _YCBCR and compression != 7
    order = (_opencv, _PLAIN_TIFF) if header.bits > 8 or stored_ycbcr else (_PLAIN_TIFF,)
    samples = tags.get(SAMPLES, (1,))[0]
    if len(order) > 1 and tags.get(PLANES, (1,))[0] == 2 and samples > 1:
        raise DataError(  # which neither of them does rightly
            f"a TIFF image of {header.bits} bits whose colours are stored one after the other, "
            "which is not read; save it with each pixel's together, or as PNG"
        )
    failure: Optional[DataError] = None
    for read in order:
        try:
            image, remark = read(data, header)
        except DataError as error:
            failure = failure or error
            continue
        is_negative = header.bits > 8 and tags.get(PHOTOMETRIC, (1,))[0] == _WHITE_IS_ZERO
        return (255 - image if is_negative else image), remark
    if samples > 4:  # of a microscope or a satellite
        failure = DataError(f"it has {samples} samples a pixel; save three as red, green and blue")
    raise DataError(f"a TIFF image of {header.bits} bits: {failure}")


def _avif(data: bytes, header: Header) -> Decoded:
    try:
        plugin = import_module("PIL.AvifImagePlugin")
    except ImportError:
        plugin = None
    if plugin is None or not getattr(plugin, "SUPPORTED", True):
        raise DataError(
            "an AVIF image, which Pillow reads from 11.3 on; pip install -U pillow, or convert it "
            "to JPEG or PNG"
        )
    return _pillow("AvifImagePlugin", "AvifImageFile")(data, header)


def _heic(data: bytes, header: Header) -> Decoded:
    """By pillow-heif, which turns images upright itself."""
    try:
        heif: Any = import_module("pillow_heif")
    except ImportError:
        raise DataError(
            "a HEIC image, as iPhones take them; pip install pillow-heif, or convert it to JPEG "
            "or PNG"
        ) from None
    try:
        file = heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        check_size(*file.size)
        return _swapped(np.array(file.to_pillow().convert("RGB"))), ""
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"a HEIC image that cannot be decoded: {error}") from None


def to_bytes(image: np.ndarray) -> Decoded:
    """Samples of any type as bytes, in three channels.

    16 bits become 8 as in other readers, by leaving out the lower ones; but values of 12 bits or
    8 in them, which microscopes and scanners store, would be black.
    """
    image, remark = _scaled(image)
    if image.ndim == 2 or image.shape[2] < 3:
        grey = image if image.ndim == 2 else image[:, :, 0]
        return cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_GRAY2BGR), remark
    return np.ascontiguousarray(image[:, :, :3]), remark


def _scaled(image: np.ndarray) -> Decoded:
    if image.dtype == np.uint8:
        return image, ""
    seen = image[:, :, : {2: 1, 4: 3}.get(image.shape[2], 3)] if image.ndim == 3 else image
    low, high = float(seen.min()), float(seen.max())
    if image.dtype.kind == "f":
        return _scaled_floats(image, low, high)
    if low < 0 or high > 65535:
        raise DataError(
            f"values from {low:g} to {high:g}; expected 0 to 255 or 0 to 65,535; convert it"
        )
    if high <= 255:
        remark = f"its values, of 16 bits or more, reach {high:g} only: taken as 8 bits; {_TO_8}"
        return image.astype(np.uint8), remark if high else ""
    if high <= 4095:
        remark = f"its values, of 16 bits or more, reach {high:g} only: taken as 12 bits; {_TO_8}"
        return (image.clip(0, 4095) * (255 / 4095) + 0.5).astype(np.uint8), remark
    dark = f"its values, of 16 bits or more, reach {high:g} only: it is dark; {_TO_8}"
    return (image.astype(np.uint16) >> 8).astype(np.uint8), dark if high < 16384 else ""


def _scaled_floats(image: np.ndarray, low: float, high: float) -> Decoded:
    for top in (1.0, 255.0, 65535.0):
        if low >= 0 and high <= top:  # neither is true of NaN
            scaled = (image * (255 / top) + 0.5).clip(0, 255).astype(np.uint8)
            return scaled, f"its floating-point values are taken as 0 to {top:,.0f}"
    raise DataError(
        f"floating-point values from {low:g} to {high:g}; expected 0 to 1 or 0 to 255; convert it"
    )


def _swapped(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, :, ::-1])


_DECODERS: Dict[str, Callable[[bytes, Header], Decoded]] = {
    kinds.JPEG: _jpeg,
    kinds.PNG: _png,
    kinds.WEBP: _opencv,
    kinds.BMP: _bmp,
    kinds.TIFF: _tiff,
    kinds.PNM: _pillow("PpmImagePlugin", "PpmImageFile"),
    kinds.JPEG2000: _pillow("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    kinds.GIF: _pillow("GifImagePlugin", "GifImageFile"),
    kinds.HEIC: _heic,
    kinds.AVIF: _avif,
}
