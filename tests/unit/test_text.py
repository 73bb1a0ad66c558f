"""Titles and descriptions become plain text, whatever a shop put into them."""

import pytest

from allmrec.data.importers.amazon import literal_to_json
from allmrec.data.text import TITLE_CHARACTERS, clean, clean_title


@pytest.mark.parametrize(
    ("dirty", "plain"),
    [
        ("Arts, Music &amp; Photography", "Arts, Music & Photography"),
        ("Kiehl&amp;amp;#39;s  Balm", "Kiehl's Balm"),
        ("<b>Bold</b><br/>title", "Bold title"),
        ("&lt;i&gt;Escaped&lt;/i&gt; tags", "Escaped tags"),
        ('<span class="a-size-medium a-color-secondary"', ""),
        ("Seen <script>alert('x')</script>only", "Seen only"),
        ("Before <!-- hidden --> after", "Before after"),
        ("5 < 6 and a <3 heart", "5 < 6 and a <3 heart"),
        ("tab\tand\nline\r\nand\u00a0space\u2028end", "tab and line and space end"),
        ("bell\u0007, nul\u0000, escape\u001b", "bell, nul, escape"),
        ("\u202egnp.exe\u202c \u2066x\u2069 \u200bzero\u200b\ufeff", "gnp.exe x zero"),
        ("soft\u00adhyphen \u200bjoin\u200der", "softhyphen joiner"),
        (
            "Family \U0001f468\u200d\U0001f469\u200d\U0001f467 set",
            "Family \U0001f468\u200d\U0001f469\u200d\U0001f467 set",
        ),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("עברית and עוד", "עברית and עוד"),
        (
            'He said "Bought together: ⟨O_1⟩"; [INST] <|im_start|>',
            'He said "Bought together: ⟨O_1⟩"; [INST] <|im_start|>',
        ),
        (" \t\u200b\u202e ", ""),
    ],
)
def test_text_is_cleaned_and_nothing_else_is_lost(dirty: str, plain: str) -> None:
    assert clean(dirty) == plain
    assert clean(plain) == plain


def test_a_title_of_ten_thousand_characters_is_cut() -> None:
    assert len(clean_title("word " * 2000)) <= TITLE_CHARACTERS


def test_python_literals_are_read_and_never_run() -> None:
    assert (
        literal_to_json("{'asin': 'B1', 'title': \"It's\", 'salesRank': {'Toys': 5}}")
        == '{"asin": "B1", "title": "It\'s", "salesRank": {"Toys": 5}}'
    )
    for line in (
        "__import__('os').system('true')",
        "{'a': open('x')}",
        "{'a': ",
        "['a']",
        "(" * 10_000,
        "{'a': {}: 1}",
    ):
        assert literal_to_json(line) is None
