"""The one writer of Markdown tables."""

import pytest

from evonas import markdown


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_to_the_right() -> None:
    text = markdown.table(["arm", "n", "n"], [["aging", 5, "12.5 ± 1"], ["a", 10, ""]])
    assert text.splitlines() == [
        "| arm   |   n |        n |",
        "| ----- | --: | -------: |",
        "| aging |   5 | 12.5 ± 1 |",
        "| a     |  10 |          |",
    ]


def test_a_row_with_a_cell_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        markdown.table(["a", "b"], [["1"]])
