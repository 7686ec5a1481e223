"""Reading the pictures back."""

import re
from functools import lru_cache
from pathlib import Path
from typing import List, NamedTuple
from xml.etree import ElementTree

import matplotlib
from PIL import ImageFont

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PIXEL = 0.75  # points
KINDS = ("parameters.", "multiply-adds.", "images.")  # of marks, by what they are drawn over


class Text(NamedTuple):
    words: str
    x: float
    y: float
    left: float
    right: float
    size: float
    color: str

    @property
    def box(self):
        """From the top of its capitals to what hangs below the line, as in a y."""
        return self.left, self.y - 0.73 * self.size, self.right, self.y + 0.24 * self.size


@lru_cache(maxsize=None)
def _font(bold):
    return ImageFont.truetype(str(FONTS / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), 100)


def texts(path: Path) -> List[Text]:
    """All words of a picture in the order of drawing, with their places in pixels."""
    found = []
    for element in ElementTree.parse(path).iter(f"{SVG}text"):
        style = element.attrib["style"]
        size = float(re.search(r"([\d.]+)px", style)[1]) / PIXEL
        width = _font("700" in style or "bold" in style).getlength(element.text) * size / 100
        anchor = re.search(r"text-anchor: (\w+)", style)[1]
        x, y = (float(element.attrib[name]) / PIXEL for name in "xy")
        left = x - {"start": 0, "middle": 0.5, "end": 1}[anchor] * width
        color = re.search(r"fill: (#\w+)", style)[1]
        found.append(Text(element.text, x, y, left, left + width, size, color))
    return found


def marks(path: Path) -> dict:
    """Card and size -> where its mark is, in points."""
    found = {}
    for group in ElementTree.parse(path).iter(f"{SVG}g"):
        if group.attrib.get("id", "").startswith(KINDS):
            (use,) = group.iter(f"{SVG}use")
            found[group.attrib["id"]] = float(use.attrib["x"]), float(use.attrib["y"])
    return found


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
