"""Pages in two languages: every message has its words, and no words are left over."""

import ast
import re

import pytest
import yaml
from jinja2 import Environment

from official.vision.classification import page
from official.vision.classification.page import TEMPLATES, language_of, speaker
from tests.scripts import ROOT

PACKAGE = ROOT / "official" / "vision" / "classification"
CHINESE = yaml.safe_load((TEMPLATES / "zh.yaml").read_text("utf-8"))


def of_templates():
    environment = Environment()
    for path in TEMPLATES.glob("*.html"):
        tree = environment.parse(path.read_text("utf-8"))
        for call in tree.find_all(page.jinja2.nodes.Call):
            if getattr(call.node, "name", "") == "_" and hasattr(call.args[0], "value"):
                yield call.args[0].value


def of_code():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                yield node.args[0].value


ABOUT = {"Network", "Weights", "Data", "Preprocessing", "Computed", "Date"}  # of the tester
MESSAGES = {*of_templates(), *of_code(), *ABOUT}


def test_every_message_is_translated():
    assert len(MESSAGES) > 80
    assert sorted(MESSAGES - set(CHINESE)) == []
    assert sorted(set(CHINESE) - MESSAGES) == []


def test_what_is_tested_is_told_by_these_names():
    text = (PACKAGE / "testing" / "tester.py").read_text("utf-8")
    assert set(re.findall(r'^        "(\w+)": ', text, re.MULTILINE)) == ABOUT


@pytest.mark.parametrize("message", sorted(MESSAGES))
def test_a_translation_says_the_same_values(message):
    values = re.compile(r"%\(\w+\)s|%(?!\()")
    signs = lambda text: sorted(sign for sign in values.findall(text))  # noqa: E731
    chinese = CHINESE[message]
    if "95 %" in message:  # per cent, and no value
        message, chinese = message.replace("95 %", "95"), chinese.replace("95%", "95")
    assert signs(chinese) == signs(message)
    assert message == chinese or re.search("[\u4e00-\u9fff]", chinese) or not message.isascii()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": ""}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale(environment, expected):
    assert language_of(None, environment) == expected
    assert language_of("en", environment) == "en"
    assert language_of("zh", environment) == "zh"


def test_values_are_put_into_the_message():
    assert speaker("en")("Top-%(k)s accuracy", k=3) == "Top-3 accuracy"
    assert speaker("zh")("Top-%(k)s accuracy", k=3) == "Top-3 准确率"
    assert speaker("zh")("not one of them") == "not one of them"


def test_scripts_of_files_are_allowed_by_their_digest():
    own = page.render({}, '<script>{{ file("page.js")|safe }}</script>|{{ script_sources }}')
    script, policy = own.decode().rsplit("|", 1)
    assert "classList" in script
    changed = page.render({}, "<script>" + script[8:-9] + "</script>|{{ script_sources }}")
    assert changed.decode().rsplit("|", 1)[1] == policy
