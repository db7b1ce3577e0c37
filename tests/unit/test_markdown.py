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


def test_counts_are_in_the_singular_and_in_the_plural() -> None:
    assert markdown.counted(1, "seed") == "1 seed"
    assert markdown.counted(0, "class") == "0 classes"
    assert markdown.counted(1200, "epoch") == "1,200 epochs"
    assert markdown.length({"epochs": 1}) == " for 1 epoch"
    assert markdown.length(None) == ""


def test_a_row_with_a_cell_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        markdown.table(["a", "b"], [["1"]])
