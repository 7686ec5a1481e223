"""HTML built as a tree, so that no text is ever taken for markup."""

from typing import Optional, Union
from xml.etree.ElementTree import Element, tostring

from ...text import printable

Part = Union[Element, str, int, None]


def tag(name: str, *content: Part, **attributes: Union[str, int, None]) -> Element:
    """An element with its content in order; what is None is left out.

    Names of classes and files are foreign: control characters in them are written as escapes, as
    on a terminal, and the rest is escaped by ``to_html``. ``class_`` stands for ``class`` and
    ``data_x`` for ``data-x``.
    """
    made = Element(name)
    for key, value in attributes.items():
        if value is not None:
            made.set(key.rstrip("_").replace("_", "-"), printable(str(value)))
    last: Optional[Element] = None
    for part in content:
        if isinstance(part, Element):
            made.append(part)
            last = part
        elif part is not None:
            text = printable(str(part))
            if last is None:
                made.text = (made.text or "") + text
            else:
                last.tail = (last.tail or "") + text
    return made


def to_html(*elements: Element) -> str:
    """Their HTML, a line each."""
    return "\n".join(tostring(element, "unicode", "html") for element in elements)
