"""Whatever a text holds, Markdown shows it as it is: read by a reader of Markdown that knows nothing of ours."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mtlkit.hub.markdown import fenced, line, plain, table

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
HOSTILE = [
    "a|b",
    "\\|",
    "|---|---|",
    "---",
    "<img src=x onerror=alert(1)>",
    "</table>",
    "<!-- ",
    "&lt;b&gt;",
    "[a](javascript:alert(1))",
    "![a](http://x/y.png)",
    "http://evil.example",
    "<http://evil.example>",
    "www.evil.example",
    "**a** _b_ __c__ ~~d~~ `e`",
    "snake_case_name",
    "`` ` ``",
    "```",
    "# a",
    "1. a",
    "- a",
    "> a",
    "a\tb",
    "\x1b[31mred",
    "a\u2028b\u202ec\u200b",
    "$x$ {{ y }} @anna :tada:",
    "ends with \\",
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=40), st.text(alphabet="|\\`*_[]()<>&~#-+=.!$:{}ab \n", max_size=20)
)


class _Cells(HTMLParser):
    """The texts of a table's cells, and every other tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def read(markdown: str) -> _Cells:
    cells = _Cells()
    cells.feed(READER.render(markdown))
    return cells


@settings(max_examples=50)
@given(st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_table_keeps_its_shape_and_shows_each_text(rows: list[list[str]]) -> None:
    columns, *body = rows
    found = read(table(columns, body))
    assert found.tags <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert found.rows == [[line(cell) for cell in row] for row in rows]


@pytest.mark.parametrize("text", HOSTILE)
def test_each_hostile_text_in_a_table_and_a_heading(text: str) -> None:
    found = read(table(["task", "value"], [[text, "1"], ["b", text]]))
    assert found.rows[1:] == [[line(text), "1"], ["b", line(text)]]
    first, inline, last, *more = READER.parse(f"# {plain(text)}")
    assert (first.tag, last.tag, more) == ("h1", "h1", [])
    assert [child.type for child in inline.children or []] in (["text"], ["text_special"]) or _texts(inline) == line(
        text
    )


def _texts(inline: Token) -> str:
    assert all(child.type in ("text", "text_special") for child in inline.children or [])
    return "".join(child.content for child in inline.children or [])


def test_usual_names_stay_readable() -> None:
    assert plain("petal_width, in cm (of 2.5)") == "petal_width, in cm (of 2.5)"


@given(st.text(alphabet="`~ab\n {}", max_size=60))
def test_a_fence_holds_whatever_is_in_it(text: str) -> None:
    tokens = READER.parse(f"before\n\n{fenced(text, 'json')}\n\nafter")
    [block] = [token for token in tokens if token.type == "fence"]
    assert block.content == f"{text}\n" and block.info == "json"
    assert tokens[-2].content == "after"


def test_numbers_stand_at_the_right_and_long_tables_are_cut() -> None:
    text = table(["task", "mae"], [[f"t{i}", "1"] for i in range(1_000)], numbers=True)
    assert text.splitlines()[1] == "| --- | ---: |"
    assert len(read(text).rows) == 201 and text.endswith("\n\nAnd 800 more.")
