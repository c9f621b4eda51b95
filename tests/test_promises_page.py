"""Each sentence of the page "What is promised" names a test that there is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
SENTENCES = [" ".join(item.split()) for item in re.findall(r"^- (.*(?:\n  .*)*)", PAGE, flags=re.M)]


@pytest.mark.parametrize("sentence", SENTENCES, ids=range(len(SENTENCES)))
def test_a_sentence_names_its_test(sentence):
    named = re.findall(r"`(tests/\S+?\.py)(?:::(\w+))?`", sentence)
    assert named, sentence
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert not test or test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (path, test)


def test_the_page_has_a_sentence_in_each_section():
    assert all("\n- " in section for section in PAGE.split("\n## ")[1:])
