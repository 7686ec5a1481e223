"""Reports in Chromium: they are drawn, the filter filters, and nothing is complained of."""

import re
import shutil
import subprocess
from urllib.parse import quote, unquote

import numpy as np
import pytest

from tests.vision.classification.testing.report.reports import (
    HOSTILE,
    Page,
    draw_folder,
    logits_of,
    write,
)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

SHOWN = [name.replace("/", "∕").replace("\t", r"\t") for name in sorted(HOSTILE)]


def quoted(number):
    """As JavaScript's encodeURIComponent does."""
    return quote(SHOWN[number], safe="!'()*~")


pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium or Chrome to look with")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Hostile names, and more images of each class than are shown at once."""
    root = tmp_path_factory.mktemp("browser")
    folder = draw_folder(root / "val", HOSTILE, 30, size=20)
    logits, _ = logits_of(len(folder), 4, skill=0.0)
    logits[np.arange(120), folder.labels] += 1
    return write(root / "report", folder, logits)


@pytest.fixture()
def look(tmp_path):
    """Opens a page; its document once scripts have run, and what was said on the console."""

    def start(path, fragment="", *flags):
        done = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
            + [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0"]
            + ["--virtual-time-budget=2000", *flags, f"file://{path}{fragment}"],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return Page(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return start


def watched(report, tmp_path, more=""):
    """A copy of the page that does ``more``, and then puts into its title what can be seen."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", report.read_text(encoding="utf-8"))
    script = f"""<script>
    {more}
    setTimeout(function () {{
      var cards = Array.from(document.querySelectorAll("li[data-label]"));
      var seen = cards.filter(function (card) {{ return card.offsetParent !== null; }});
      var pictures = Array.from(document.images);
      document.title = [
        seen.length,
        document.querySelector(".filter").offsetParent === null ? "no filter" : "filter",
        pictures.every(function (p) {{ return p.complete && p.naturalWidth > 0; }}),
        document.documentElement.scrollWidth <= window.innerWidth,
        location.hash
      ].join(" | ");
    }}, 300);
    </script></body>"""
    path = tmp_path / "watched.html"
    path.write_text(text.replace("</body>", script), encoding="utf-8")
    return path


def title(page):
    (element,) = page.all("title")
    return element["text"].split(" | ")


def test_it_is_drawn_without_complaint(report, look):
    page, complaints = look(report)
    assert complaints == []
    assert page.all("html", class_="scripted")
    assert page.tables == Page(report).tables
    cards = [e for e in page.all("li") if "data-label" in e["attributes"]]
    assert len(cards) > 100 and not any("hidden" in e["attributes"] for e in cards)
    assert title(page) == ["Test report: a network on <data>"]  # no name has run as a script
    assert "hidden" not in page.all("div", class_="filter")[0]["attributes"]


def distinct(page):
    """Of the images that are shown, maybe more than once, their paths and classes."""
    cards = [e["attributes"] for e in page.all("li") if "data-label" in e["attributes"]]
    files = [e["attributes"]["title"] for e in page.all("p", class_="file")][: len(cards)]
    found = {
        (file, card["data-label"], card["data-guess"])
        for card, file in zip(cards, files)
        if "hidden" not in card
    }
    assert len(found) < sum("hidden" not in card for card in cards)
    return found


@pytest.mark.parametrize(
    ("number", "address"), [("0", "0"), ("2", "2"), ("1", quote(SHOWN[1])), ("3", quote(SHOWN[3]))]
)
def test_the_address_chooses_a_class(report, look, number, address):
    page, complaints = look(report, f"#class={address}")
    assert complaints == []
    cards = [e["attributes"] for e in page.all("li") if "data-label" in e["attributes"]]
    for card in cards:
        assert ("hidden" in card) == (number not in (card["data-label"], card["data-guess"]))
    count = sum("hidden" not in card for card in cards)
    assert 20 < count < len(cards)
    seen = distinct(page)
    count, right = len(seen), sum(label == guess for _, label, guess in seen)
    assert page.all("output")[-1]["text"] == f"{count} pictures, {right} right"


def test_the_address_chooses_a_confusion(report, look):
    page, complaints = look(report, f"#true={quote(SHOWN[0])}&as={quote(SHOWN[3])}")
    assert complaints == []
    cards = [e["attributes"] for e in page.all("li") if "data-label" in e["attributes"]]
    seen = {(c["data-label"], c["data-guess"]) for c in cards if "hidden" not in c}
    assert seen == {("0", "3")}
    assert page.all("output")[-1]["text"].startswith(f"{SHOWN[0]} → {SHOWN[3]}: ")
    assert page.all("output")[-1]["text"].endswith(f": {len(distinct(page))} pictures, 0 right")


def test_every_number_of_the_matrix_and_of_the_confusions_opens_pictures(report):
    page = Page(report)
    cards = [e["attributes"] for e in page.all("li") if "data-label" in e["attributes"]]
    found = {(SHOWN[int(c["data-label"])], SHOWN[int(c["data-guess"])]) for c in cards}
    links = [e for e in page.all("a") if e["attributes"]["href"].startswith("#true=")]
    pairs = [unquote(link["attributes"]["href"]) for link in links]
    asked = [tuple(pair[len("#true=") :].split("&as=", 1)) for pair in pairs]
    assert len(links) >= 16 + 12 and set(asked) <= found
    cells = [e for e in page.all("td") if "--d" in e["attributes"].get("style", "")]
    assert len(cells) == 16 and len(links) == len(cells) + len(page.tables[2]) - 1


ACT = """
    var click = function (what) { document.querySelector(what).click(); };
    var table = document.querySelectorAll("table")[0];
    var first = function () { return table.tBodies[0].rows[0].cells[0].textContent; };
    var said = [];
    setTimeout(function () { %s; document.title = said.join(" | "); }, 400);
"""


def acted(report, tmp_path, script):
    text = re.sub(r"<meta http-equiv[^>]*>", "", report.read_text(encoding="utf-8"))
    path = tmp_path / "acted.html"
    path.write_text(text.replace("</body>", f"<script>{ACT % script}</script></body>"), "utf-8")
    return path


def test_tables_sort_and_search(report, look, tmp_path):
    rows = Page(report).tables[0][1:]
    column = 6  # precision
    script = f"""
    var head = table.tHead.rows[0].cells[{column}].querySelector("button");
    head.click(); said.push(first(), head.parentNode.getAttribute("aria-sort"));
    head.click(); said.push(first(), head.parentNode.getAttribute("aria-sort"));
    var field = document.querySelector("input[type=search]");
    field.value = "CMD"; field.dispatchEvent(new Event("input"));
    var rows = Array.from(table.tBodies[0].rows);
    said.push(rows.filter(function (row) {{ return !row.hidden; }}).length);
    said.push(document.querySelector(".tools output").textContent)"""
    page, complaints = look(acted(report, tmp_path, script))
    assert complaints == []
    order = sorted(rows, key=lambda row: float(row[column].split()[0]))
    named = sum("cmd" in " ".join(row).lower() for row in rows)
    assert title(page) == [
        *(order[-1][0], "descending", order[0][0], "ascending", str(named), f"{named} rows")
    ]


def test_pictures_enlarge(report, look, tmp_path):
    """By a click or by Enter; arrows go on, and the keyboard comes back to where it was."""
    script = """
    var dialog = document.querySelector("dialog");
    var images = document.querySelectorAll(".gallery figure img[tabindex]");
    var shown = function () { return dialog.querySelector(".file").textContent; };
    var file = function (image) {
      return image.closest("figure").querySelector(".file").textContent;
    };
    images[3].click(); said.push(dialog.open, shown() === file(images[3]));
    dialog.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    said.push(shown() === file(images[4]));
    dialog.querySelector(".close").click(); said.push(dialog.open);
    images[5].dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
    said.push(dialog.open, shown() === file(images[5]))"""
    page, complaints = look(acted(report, tmp_path, script))
    assert complaints == []
    assert title(page) == ["true", "true", "true", "false", "true", "true"]


def test_it_prints(report, tmp_path):
    """All of it: as many pages as its pictures need, and no shadow of a cut-off table."""
    out = tmp_path / "report.pdf"
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={out}"]
    subprocess.run([*command, f"file://{report}"], capture_output=True, timeout=240, check=True)
    assert len(re.findall(rb"/Type /Page\b", out.read_bytes())) >= 4
    style = Page(report).all("style")[0]["text"]
    printed = style[style.index("@media print") :]
    assert "max-height: none" in printed and "overflow: visible" in printed


def test_in_chinese(report, look, tmp_path):
    folder = draw_folder(tmp_path / "val", ("猫", "狗"), 6)
    path = write(tmp_path / "report", folder, logits_of(12, 2)[0], language="zh")
    page, complaints = look(path, f"#class={quote('猫')}")
    assert complaints == []
    assert page.all("html", lang="zh-Hans")
    assert title(page) == ["测试报告：a network on <data>"]
    assert re.fullmatch(r"\d+ 张图片，\d+ 张正确", page.all("output")[-1]["text"])
    assert [row[0] for row in page.tables[0][1:]] == ["猫", "狗"] or page.tables[0][1][0] == "狗"


@pytest.mark.parametrize("fragment", ["#class=7", "#class=0x", '#class="]'])
def test_an_address_that_chooses_none(report, look, fragment):
    page, complaints = look(report, fragment)
    assert complaints == []
    assert not [e for e in page.all("li") if "hidden" in e["attributes"]]


def test_what_can_be_seen(report, look, tmp_path):
    """Three times 24 images at first; those of a class also from among the others."""
    page, _ = look(watched(report, tmp_path))
    assert title(page) == ["72", "filter", "true", "true", ""]
    change = 'var s = document.getElementById("class-filter"); s.value = "1";'
    change += 's.dispatchEvent(new Event("change"));'
    page, _ = look(watched(report, tmp_path, change))
    cards = [e["attributes"] for e in Page(report).all("li") if "data-label" in e["attributes"]]
    own = sum("1" in (card["data-label"], card["data-guess"]) for card in cards)
    assert title(page) == [str(own), "filter", "true", "true", f"#class={quoted(1)}"]
    back = change + 's.value = ""; s.dispatchEvent(new Event("change"));'
    page, _ = look(watched(report, tmp_path, back))
    assert title(page) == ["72", "filter", "true", "true", "#pictures"]


def test_a_link_of_the_table_chooses_its_class(report, look, tmp_path):
    link = f"#class={quote(SHOWN[3], safe='/')}"
    click = f"document.querySelector('a[href=\"{link}\"]').click();"
    page, _ = look(watched(report, tmp_path, click))
    cards = [e["attributes"] for e in Page(report).all("li") if "data-label" in e["attributes"]]
    own = sum("3" in (card["data-label"], card["data-guess"]) for card in cards)
    assert title(page) == [str(own), "filter", "true", "true", link]


def test_without_scripts_everything_is_seen_but_the_filter(report, look, tmp_path):
    text = re.sub(r"<script>.*</script>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    silent = tmp_path / "silent.html"
    silent.write_text(text, encoding="utf-8")
    page, _ = look(watched(silent, tmp_path))
    cards = [e for e in Page(report).all("li") if "data-label" in e["attributes"]]
    assert title(page) == [str(len(cards)), "no filter", "true", "true", ""]


def test_a_narrow_window_is_wide_enough(report, look, tmp_path):
    """The page itself does not scroll sideways."""
    page, _ = look(watched(report, tmp_path), "", "--window-size=500,900")
    assert title(page)[2:4] == ["true", "true"]


def test_a_script_that_is_not_the_reports_own_does_not_run(report, look, tmp_path):
    text = report.read_text(encoding="utf-8")
    path = tmp_path / "injected.html"
    path.write_text(text.replace("</main>", "<script>document.title = 'x'</script></main>"))
    page, complaints = look(path)
    assert title(page) == ["Test report: a network on <data>"]
    assert len(complaints) == 1 and "Content Security Policy" in complaints[0]
