"""What the values of flags may be: functions for argparse's ``type``."""

import argparse
import re


def positive(text: str) -> int:
    """A flag's value that must be 1, 2, 3, …"""
    return _integer(text, 1)


def natural(text: str) -> int:
    """A flag's value that must be 0, 1, 2, …"""
    return _integer(text, 0)


def positive_float(text: str) -> float:
    """A flag's value that must be a number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """A flag's value that must lie between 0 and 1."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def port(text: str) -> int:
    """A flag's value that must be a port's number."""
    value = _integer(text, 1)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; they go up to 65535")
    return value


def device(text: str) -> str:
    """--device's value; cuda is what others call a GPU."""
    name = {"cuda": "gpu"}.get(text.lower(), text.lower())
    if name in ("auto", "gpu", "cpu"):
        return name
    which = ""
    if re.fullmatch(r"(gpu|cuda):?\d+|\d+", name):
        number = re.sub(r"\D", "", name)
        which = f"; CUDA_VISIBLE_DEVICES={number} before the command chooses that GPU"
    raise argparse.ArgumentTypeError(f"{text!r} is none of auto, gpu (or cuda) and cpu{which}")


def boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
    return value
