"""Text and numbers as they are shown and written."""

import difflib
import re
import unicodedata
from typing import Collection, List, Sequence


def printable(text: str) -> str:
    """``text`` with its control characters escaped, so that it cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shortened(text: str, most: int = 2000) -> str:
    """``text`` without its middle where it is longer than any message: a name may be so long."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]} … {text[-most // 4 :]}"


def cells(text: str) -> int:
    """How many cells of a terminal ``text`` takes: two for a wide letter, none for a mark on one.

    After Unicode Standard Annex 11, "East Asian Width".
    """
    return sum(
        0
        if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(letter) in "WF"
        else 1
        for letter in text
    )


def in_cells(text: str, width: int, right: bool = False) -> str:
    """``text`` with spaces after it, or before it, up to ``width`` cells of a terminal."""
    spaces = " " * (width - cells(text))
    return spaces + text if right else text + spaces


def aligned(rows: Sequence[Sequence[object]], left: Collection[int] = (0,)) -> List[str]:
    """Rows of a table for a terminal: columns below each other, by the cells that letters take.

    Control characters are escaped.

    Args:
        left: the columns of words, by number; those of numbers end below each other.
    """
    texts = [[printable(str(value)) for value in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*texts)]
    return [
        "  ".join(
            in_cells(text, width, right=place not in left)
            for place, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in texts
    ]


def nearest(name: str, known: Collection[str], most: int = 1) -> List[str]:
    """Which of the ``known`` names may have been meant, best first; none where nothing is near.

    The one that differs in nothing but case and punctuation; else those that begin so, short ones
    first; else those that share most letters in their order.
    """
    name = name[:100]  # the comparison takes time by the square
    bare = {other: re.sub(r"[\W_]", "", other).casefold() for other in known}
    asked = re.sub(r"[\W_]", "", name).casefold()
    same = [other for other in known if asked and bare[other] == asked]
    longer = sorted(other for other in known if name and other.startswith(name))
    longer.sort(key=len)
    return (same[:1] or longer or difflib.get_close_matches(name, known, most))[:most]


def unknown(kind: str, name: str, known: Collection[str], others: str = "") -> str:
    """A message for a name that is not there, with those it may have meant.

    Args:
        others: where to find the names that are not told.
    """
    near = nearest(name, known, 3)
    if near:
        return f"unknown {kind} {name!r}: did you mean {', '.join(near)}?"
    few = ", ".join(list(known)[:3])
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    return f"unknown {kind} {name!r}: there are {few}{more}" + (f"; {others}" if others else "")


def no_formula(text: str) -> str:
    """``text`` for a cell of a CSV file: an apostrophe comes before what would be a formula.

    As OWASP advises under "CSV Injection".
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def seven_digits(value: float) -> float:
    """``value`` with seven significant digits: float32 arithmetic does not give more."""
    return float(f"{value:.7g}")


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
