"""Text of unknown origin, such as names of files and classes, before it is shown."""


def printable(text: str) -> str:
    """``text`` with its control characters escaped, so that it cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
