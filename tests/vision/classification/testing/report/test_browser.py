"""Reports in Chromium: they are drawn, the filter filters, and nothing is complained of."""

import re
import shutil
import subprocess

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


@pytest.mark.parametrize("number", ["0", "2"])
def test_the_address_chooses_a_class(report, look, number):
    page, complaints = look(report, f"#class={number}")
    assert complaints == []
    cards = [e["attributes"] for e in page.all("li") if "data-label" in e["attributes"]]
    for card in cards:
        assert ("hidden" in card) == (number not in (card["data-label"], card["data-guess"]))
    count = sum("hidden" not in card for card in cards)
    assert 20 < count < len(cards)
    assert [e["text"] for e in page.all("output")] == [f"{count} pictures"]


@pytest.mark.parametrize("fragment", ["#class=7", "#class=0x", '#class="]'])
def test_an_address_that_chooses_none(report, look, fragment):
    page, complaints = look(report, fragment)
    assert complaints == []
    assert not [e for e in page.all("li") if "hidden" in e["attributes"]]


def test_what_can_be_seen(report, look, tmp_path):
    """Twice 24 images at first; those of a class also from among the others."""
    page, _ = look(watched(report, tmp_path))
    assert title(page) == ["48", "filter", "true", "true", ""]
    change = 'var s = document.getElementById("class-filter"); s.value = "1";'
    change += 's.dispatchEvent(new Event("change"));'
    page, _ = look(watched(report, tmp_path, change))
    cards = [e["attributes"] for e in Page(report).all("li") if "data-label" in e["attributes"]]
    own = sum("1" in (card["data-label"], card["data-guess"]) for card in cards)
    assert title(page) == [str(own), "filter", "true", "true", "#class=1"]
    back = change + 's.value = ""; s.dispatchEvent(new Event("change"));'
    page, _ = look(watched(report, tmp_path, back))
    assert title(page) == ["48", "filter", "true", "true", "#pictures"]


def test_a_link_of_the_table_chooses_its_class(report, look, tmp_path):
    click = "document.querySelector('a[href=\"#class=3\"]').click();"
    page, _ = look(watched(report, tmp_path, click))
    cards = [e["attributes"] for e in Page(report).all("li") if "data-label" in e["attributes"]]
    own = sum("3" in (card["data-label"], card["data-guess"]) for card in cards)
    assert title(page) == [str(own), "filter", "true", "true", "#class=3"]


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
