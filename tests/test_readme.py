"""README.md and README.zh.md say the same; test_docs.py runs their commands."""

import re

import pytest

from tests import documents
from tests.documents import TRANSLATIONS

ENGLISH, CHINESE = "README.md", "README.zh.md"


def headings(document):
    return re.findall(r"^(#+) ", documents.prose(document), re.MULTILINE)


def links(document):
    """Where they lead, but for anchors, which are headings of the document's own language.

    A page of docs/zh/ counts as the English one; where there is one, README.zh.md leads to it.
    """
    found = re.findall(r"\]\(([^)\s]+)\)", documents.prose(document))
    found = [target for target in found if not target.startswith(("#", "README"))]
    if document == CHINESE:
        assert not set(found) & set(TRANSLATIONS.values())
    return sorted(TRANSLATIONS.get(target, target) for target in found)


def test_they_lead_to_each_other_at_the_top():
    for document, other in ((ENGLISH, CHINESE), (CHINESE, ENGLISH)):
        assert f"]({other})" in "\n".join(documents.read(document).splitlines()[:4])


def test_their_blocks_are_the_same_in_the_same_order():
    """Marks included, but not the reasons that these give."""
    english, chinese = (
        [(block.language, block.text, block.mark) for block in documents.blocks(document)]
        for document in (ENGLISH, CHINESE)
    )
    assert len(english) > 10
    assert chinese == english


def test_their_sections_and_links_are_the_same():
    assert headings(CHINESE) == headings(ENGLISH)
    assert links(CHINESE) == links(ENGLISH)
    anchors = [re.findall(r"\]\(#", documents.prose(name)) for name in (ENGLISH, CHINESE)]
    assert len(anchors[0]) == len(anchors[1])


def test_they_name_the_same_flags_files_and_functions():
    """Whatever stands between backquotes, but for a translated placeholder."""
    english, chinese = (
        sorted(documents.spans(documents.prose(document))) for document in (ENGLISH, CHINESE)
    )
    assert chinese == english


@pytest.mark.parametrize("document", [ENGLISH, CHINESE])
def test_environment_commands_are_make_targets_that_ci_runs(document):
    ours = [
        command
        for block in documents.blocks(document)
        if block.language == "bash"
        for command in block.commands
        if not command.startswith("python ")
    ]
    assert ours == ["make setup", "source .venv/bin/activate", "make demo"]
    ci = documents.read(".ci/run")
    assert re.search(r"^make .*\btest\b.*\bdemo\b", ci, flags=re.MULTILINE)  # both need setup
