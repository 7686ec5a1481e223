import pytest

from official.vision.classification.text import printable


@pytest.mark.parametrize("text", ["", "tabby cat", "三花猫", "a\\b", "Déjà vu"])
def test_what_can_be_read_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # turns the order of what follows
        ("\x9b2J", r"\x9b2J"),  # ESC [ in one character
        ("\udcff", r"\udcff"),  # a byte of a file name that is no UTF-8
    ],
)
def test_what_steers_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown
