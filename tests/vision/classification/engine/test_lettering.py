"""Words in pictures: which font, how wide, and what is drawn where no font has the letters."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from official.vision.classification.engine import lettering
from official.vision.classification.engine.lettering import Lettering, drawable, font_file


def square():
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    return pen.glyph()


def make_font(path, letters):
    """A font whose letters are black squares."""
    names = [f"g{ord(letter):x}" for letter in letters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names)})
    builder.setupGlyf({name: square() for name in (".notdef", *names)})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in (".notdef", *names)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(str(path))
    return str(path)


@pytest.fixture()
def fonts(monkeypatch):
    """Call it with the machine's fonts."""
    cached = (lettering._installed, lettering.font_file, lettering._remark)

    def forget():
        for one in cached:
            one.cache_clear()

    def install(*paths):
        forget()
        monkeypatch.setattr(
            "matplotlib.font_manager.findSystemFonts",
            lambda _, kind: paths if kind == "ttf" else (),
        )

    yield install
    forget()


def test_a_font_is_taken_that_has_the_letters(tmp_path, fonts):
    cat = make_font(tmp_path / "A.ttf", "猫a")
    chosen = make_font(tmp_path / "NotoSansCJK-Regular.ttc", "山猫")
    fonts(cat, chosen)
    assert font_file("crème brûlée").endswith("DejaVuSans.ttf")
    assert font_file("山 猫") == font_file("猫") == chosen  # those that are made for it first
    assert font_file("猫a") == cat
    assert font_file("犬") is None


def test_what_no_font_has_is_a_number_and_said_once(tmp_path, fonts, caplog):
    fonts(make_font(tmp_path / "a.ttf", "猫"))
    assert [drawable("猫", 3), drawable("giant_panda", 4)] == ["猫", "giant panda"]
    assert not caplog.records
    assert [drawable("犬", 5), drawable("犬\n", 6)] == ["class 5", "class 6"]
    assert len(caplog.records) == 1 and "fonts-noto-cjk" in caplog.text


def test_files_that_are_no_fonts(tmp_path, fonts):
    (tmp_path / "wqy.ttf").write_bytes(b"\0\1\0\0 not a font")
    fonts(str(tmp_path / "wqy.ttf"), str(tmp_path / "gone.ttf"))
    assert font_file("猫") is None


def test_control_characters_are_escaped(fonts):
    fonts()
    assert drawable("a\x1b[31m", 0) == "a\\x1b[31m"


@pytest.mark.parametrize("right", [False, True])
def test_letters_stand_where_they_should(tmp_path, fonts, right):
    """Squares of 20 pixels: three fit into 70, four do not."""
    fonts(make_font(tmp_path / "a.ttf", "猫山…"))
    white = np.full((40, 200, 3), 255, np.uint8)
    for text, width in (("猫山猫", 60), ("猫山猫山猫", 60), ("猫", 20)):
        words = Lettering(white)
        words.write(text, 150 if right else 50, 20, 20, (1, 2, 3), 70, right)
        picture = words.picture()
        ink = (picture == (1, 2, 3)).all(2)
        rows, columns = ink.nonzero()
        start = 150 - width if right else 50
        assert (columns.min(), columns.max() + 1) == (start, start + width)
        assert (rows.min(), rows.max() + 1) == (10, 30)
    assert (white == 255).all()
