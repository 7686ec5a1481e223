"""Text and numbers as they are shown and written."""


def printable(text: str) -> str:
    """``text`` with its control characters escaped, so that it cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def no_formula(text: str) -> str:
    """``text`` for a cell of a CSV file: an apostrophe comes before what would be a formula.

    As OWASP advises under "CSV Injection".
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def seven_digits(value: float) -> float:
    """``value`` with seven significant digits: float32 arithmetic does not give more."""
    return float(f"{value:.7g}")
