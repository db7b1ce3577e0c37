"""`python -m evonas`."""

from evonas.cli import app

app()
