from html.parser import HTMLParser

from official.vision.classification.testing.report.markup import tag, to_html


def test_content_stays_in_order():
    made = tag(
        "p", "a", 1, tag("b", "c"), None, "d", 2, tag("br"), "e", class_="x", data_n=3, id=None
    )
    assert to_html(made) == '<p class="x" data-n="3">a1<b>c</b>d2<br>e</p>'
    assert to_html(tag("i"), tag("b")) == "<i></i>\n<b></b>"
    assert to_html() == ""


def test_foreign_text_is_text():
    """As another parser reads it."""
    nasty = "<script>&lt;'\"> $title ${x} &"
    read = []
    parser = HTMLParser()
    parser.handle_starttag = lambda name, attributes: read.append((name, dict(attributes)))
    parser.handle_data = read.append
    parser.feed(to_html(tag("p", nasty, title=nasty)))
    parser.close()
    assert read[0] == ("p", {"title": nasty}) and "".join(read[1:]) == nasty


def test_control_characters_are_written_out():
    """And what turns the direction of writing; bytes that are no UTF-8 as well."""
    made = to_html(tag("p", "a\x1b[31m\x00\u202e\udcff", title="\u2066\n"))
    assert made == r'<p title="\u2066\n">a\x1b[31m\x00\u202e\udcff</p>'
    made.encode("utf-8")
