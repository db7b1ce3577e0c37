"""The settings of a space known only from a table, which has no networks to build."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from evonas.core import Blueprint, Params, Requirement
from evonas.words import as_text
from genomes.table import TableSpace

Choice = Annotated[str, BeforeValidator(as_text), Field(min_length=1)]  # 3 means "3"
Choices = Annotated[tuple[Choice, ...], Field(min_length=1, strict=False)]


class TableParams(Params):
    name: Literal["table"] = "table"
    genes: Annotated[dict[Choice, Choices], Field(min_length=1, max_length=1000)]
    """The names of the genes, in the order in which the table writes them, and their choices: the
    digit 0 in the table stands for a gene's first choice. `{"0>1": [none, skip, conv]}`."""

    def model_post_init(self, context: object) -> None:
        try:
            TableSpace(self.genes)
        except ValueError as error:
            raise Requirement(
                "give each gene and choice a name of its own", "genes", str(error)
            ) from None


TABLE = Blueprint(TableParams, TableSpace, None, space_keys=("genes",), shares=None)
