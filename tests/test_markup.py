"""Markdown tables hold any text."""

from promptmii.markup import markdown_table


def test_cells_stay_on_one_line_and_hold_no_html() -> None:
    rows = [("x|y", "two\nlines <b>"), ("1 < 2", 3)]
    lines = ["| a | b |", "| --- | ---: |", "| x\\|y | two lines &lt;b> |", "| 1 < 2 | 3 |"]
    assert markdown_table(("a", "b"), rows, numbers=True).splitlines() == lines
