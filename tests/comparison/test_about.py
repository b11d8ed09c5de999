"""Docstrings as HTML: what is known is rendered, what is not known is kept, everything is escaped."""

import html
import re
from html.parser import HTMLParser

import pytest

from dpcontrol.catalogue import find, names
from dpcontrol.comparison.about import as_html

TABLE = """The table:

==========  =======================  ======
symbol      value                    unit
==========  =======================  ======
``u``       state, *32* cells        1
``a < b``   goes on
            in the next line         ``m``
empty                                s
==========  =======================  ======

After it."""


class Tags(HTMLParser):
    """Fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_simple_table_keeps_its_columns() -> None:
    text = as_html(TABLE)
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    cells = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]
    assert cells == [
        ["symbol", "value", "unit"],
        ["<code>u</code>", "state, <em>32</em> cells", "1"],
        ["<code>a &lt; b</code>", "goes on in the next line", "<code>m</code>"],
        ["empty", "", "s"],
    ]
    assert "<p>After it.</p>" in text and "===" not in text


def test_blocks_keep_their_lines_and_their_alignment() -> None:
    text = as_html("x is::\n\n    a  = 1\n      b < 2\n\n    c\n\n.. math::\n\n    u_t = u\n\nEnd.")
    assert text == "\n".join(
        ["<p>x is:</p>", "<pre>a  = 1\n  b &lt; 2\n\nc</pre>", "<pre>u_t = u</pre>", "<p>End.</p>"]
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("``a * b * c``", "<code>a * b * c</code>"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("sum*2 and x*y", "sum*2 and x*y"),
        ("which is *not* **so**", "which is <em>not</em> <strong>so</strong>"),
        (":class:`~dpcontrol.problem.Problem`", "<code>Problem</code>"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("``<b>`` & co", "<code>&lt;b&gt;</code> &amp; co"),
        ("two\nlines", "two lines"),
    ],
)
def test_marks_within_a_line(source: str, expected: str) -> None:
    assert as_html(source) == f"<p>{expected}</p>"


def test_lists_and_the_arguments_of_a_call() -> None:
    text = as_html("Kinds:\n\n- one\n  of them\n- another\n\nArgs:\n    x: unseen\n")
    assert text == "<p>Kinds:</p>\n<ul><li>one of them</li><li>another</li></ul>"


def test_what_is_no_table_is_kept() -> None:
    assert "=== ===" in as_html("=== ===\nno rule closes it")
    assert as_html("") == ""


@pytest.mark.parametrize("name", names())
def test_every_problem_of_the_catalogue_loses_no_word(name: str) -> None:
    source = find(name).module.__doc__ or ""
    text = as_html(source)
    Tags().feed(text)
    shown = html.unescape(re.sub(r"<[^>]*>", " ", text))
    words = re.findall(r"\w{4,}", re.sub(r":\w+:`[^`]*`|\.\. math::", "", source))
    assert [word for word in words if word not in shown] == []
    assert "====" not in text and "``" not in text
