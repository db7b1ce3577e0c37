"""The NAS-Bench-201 table, which lies beside the repository and not in it."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest

from tests.helpers import SHARED

TABLE = SHARED / "data/nasbench201/nasbench201.csv.gz"

needs_table = pytest.mark.skipif(
    not TABLE.exists(), reason="needs ../shared/data/nasbench201/nasbench201.csv.gz"
)


@cache
def nasbench201() -> pd.DataFrame:
    """One row a cell, 15,625 of them; `genome` is text, `333132`."""
    return pd.read_csv(TABLE, dtype={"genome": str})


def genes_of(digits: str) -> tuple[int, ...]:
    """Genes of a genome as the table writes it."""
    return tuple(map(int, digits))
