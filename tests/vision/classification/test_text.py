import pytest

from official.vision.classification.text import (
    aligned,
    cells,
    in_cells,
    nearest,
    no_formula,
    printable,
    seven_digits,
    shortened,
    unknown,
)


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


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ResNet50", ["resnet50"]),
        ("resnet-50", ["resnet50"]),
        ("RESNET50-CIFAR", ["resnet50_cifar"]),
        ("resnet5", ["resnet50", "resnet50_cifar"]),  # those that begin so
        ("resnet50", ["resnet50"]),
        ("resnet180", ["resnet18"]),
        ("rsenet50_cifar", ["resnet50_cifar"]),
        ("early_stopping", []),
        ("", []),
        ("_", []),
        ("三花猫", []),
    ],
)
def test_the_nearest(name, found):
    known = ["resnet18", "resnet50", "resnet50_cifar", "wide"]
    assert nearest(name, known, 2)[: len(found) or 1] == found
    assert nearest(name, known) == found[:1]
    assert nearest(name, []) == []


def test_a_long_name_takes_no_time():
    assert nearest("x" * 10**6, ["y" * 50]) == []


def test_few_names_are_all_told():
    assert unknown("colour", "x", ["red", "blue"]) == "unknown colour 'x': there are red, blue"
    four = unknown("colour", "x", ["red", "blue", "grey", "pink"], "the box has all")
    assert four == "unknown colour 'x': there are red, blue, grey and 1 more; the box has all"


@pytest.mark.parametrize("first", list("=+-@\t\r\n"))
def test_no_text_is_a_formula(first):
    assert no_formula(f"{first}1") == f"'{first}1"


@pytest.mark.parametrize("text", ["", "a=1", "'quoted", "./-x", "7"])
def test_other_text_stays(text):
    assert no_formula(text) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1 / 3, 0.3333333),
        (1.0, 1.0),
        (0.1 + 0.2, 0.3),
        (1e-30 / 3, 3.333333e-31),
        (12345678.9, 12345680.0),
    ],
)
def test_seven_digits(value, expected):
    assert seven_digits(value) == expected


@pytest.mark.parametrize(
    ("text", "wide"),
    [("lynx", 4), ("山猫", 4), ("ｶﾅ", 2), ("Ａ", 2), ("e\u0301", 1), ("", 0), ("한", 2), ("é", 1)],
)
def test_cells_of_a_terminal(text, wide):
    """As wcwidth, the C library's, counts them."""
    assert cells(text) == wide
    padded, before = in_cells(text, 6), in_cells(text, 6, right=True)
    assert cells(padded) == cells(before) == 6 and padded.strip() == before.strip() == text
    assert in_cells(text, 0) == text


def test_columns_below_each_other_by_cells():
    """As a terminal shows them: a Chinese letter is two wide, a combining mark none."""
    rows = [("name", "n", "what"), ("猫狗", 5, "x"), ("e\u0301t\x1b", 1234, "鸟")]
    lines = aligned(rows, left=(0, 2))
    assert lines == ["name       n  what", "猫狗       5  x", "e\u0301t\\x1b  1234  鸟"]
    starts = [cells(line[: line.rindex(str(row[2]))]) for line, row in zip(lines, rows)]
    assert len(set(starts)) == 1
    assert aligned([("a", "b"), ("c", "dd")]) == ["a   b", "c  dd"]


def test_only_what_is_too_long_for_a_message_is_shortened():
    assert shortened("a" * 2000) == "a" * 2000
    assert shortened("begin" + "a" * 10**6 + "end", 100) == f"begin{'a' * 70} … {'a' * 22}end"
