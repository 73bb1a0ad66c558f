"""Titles and descriptions become plain text, whatever a shop put into them."""

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
        ("<p>One.<p>Two.", "One. Two."),
        ("<P CLASS=x>One", "One"),
        ('Word <o:p>&nbsp;</o:p><st1:place w:st="on">Rome</st1:place>', "Word Rome"),
        ('<x-price currency="EUR">5</x-price> a piece', "5 a piece"),
        ("One<br>two<hr/>three", "One two three"),
        ("<!DOCTYPE html>A page", "A page"),
        ("Cut <script type='text/javascript'>var a = 1;", "Cut"),
        ("Learn <script> today", "Learn today"),
        ("</span>", ""),
    ],
)
def test_text_is_cleaned_and_nothing_else_is_lost(dirty: str, plain: str) -> None:
    assert clean(dirty) == plain
    assert clean(plain) == plain


@pytest.mark.parametrize(
    "title",
    [
        "<Untitled>",
        "<title>",
        "The <b> Show",
        "if a <b and c> d",
        "List<String>",
        "Map<K, V> and List<A>",
        "C++ <vector> primer",
        "#include <stdio.h>",
        "<3 of hearts, <Blue> period",
        "Ann <ann@example.org>, <https://example.org/a=b>",
        "a <p> b",
        "x <y z=3",
        "<Small> <Big>",
    ],
)
def test_what_looks_like_a_tag_and_is_none_stays(title: str) -> None:
    assert clean_title(title) == title


@pytest.mark.parametrize(
    ("dirty", "plain"),
    [
        ("Use &lt;div&gt; in HTML", "Use <div> in HTML"),
        ("Use &amp;lt;div&amp;gt; in HTML", "Use <div> in HTML"),
        ("<b>Use</b> &lt;div&gt;", "Use <div>"),
        ("&lt;p&gt;One.&lt;/p&gt;&lt;p&gt;Two.&lt;/p&gt;", "One. Two."),
    ],
)
def test_a_tag_that_was_escaped_is_judged_by_itself(dirty: str, plain: str) -> None:
    assert clean(dirty) == plain


@pytest.mark.parametrize("piece", ["<", "<script>", "</b>", "<b>", "<a b=", "<!--", "&lt;", "<script a=b>"])
def test_a_long_hostile_text_is_cleaned_in_time(piece: str) -> None:
    start = time.process_time()
    clean(piece * 20_000)
    assert time.process_time() - start < 5


def test_a_title_of_ten_thousand_characters_is_cut() -> None:
    assert len(clean_title("word " * 2000)) <= TITLE_CHARACTERS


MARKUP = st.sampled_from(
    [
        "<b>",
        "</p>",
        "<",
        ">",
        "<a ",
        "href=",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "&",
        "amp;",
        "lt;",
        "gt;",
        "&#38;",
        "&nbsp;",
        "&zwj;",
        "\u200b",
        "\u200d",
        "\u202e",
        "\x00",
        "\t",
        "\x1f",
        "\x85",
        "\u2028",
        "क",
        "☃",
    ]
)
DIRTY = st.lists(MARKUP | st.text(max_size=3), max_size=12).map("".join) | st.text()
"""Any text, and texts put together of what `clean` looks for."""


@given(DIRTY)
@example("&amp;amp;amp;amp;lt;b&gt;")
@example("<\u200bb>")
@example("<a b=<c d=")
def test_a_cleaned_text_stays_as_it_is(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(DIRTY)
def test_no_text_keeps_control_or_invisible_characters_or_unfolded_white_space(text: str) -> None:
    plain = clean(text)
    assert "  " not in plain
    assert plain == plain.strip()
    assert not [letter for letter in plain if letter.isspace() and letter != " "]
    assert not [letter for letter in plain if unicodedata.category(letter) == "Cc"]
    assert not set(plain) & set("\u00ad\u200b\u200e\u200f\u202a\u202d\u202e\u2060\u2066\u2069\ufeff")


@given(DIRTY, st.integers(0, 2 * TITLE_CHARACTERS))
@example("<b x=5 <", TITLE_CHARACTERS - 7)
def test_a_title_is_never_too_long_and_stays_as_it_is(text: str, num_words: int) -> None:
    title = clean_title("w" * num_words + text + " more" * 200)
    assert len(title) <= TITLE_CHARACTERS
    assert clean_title(title) == title
