"""Contracts that a plug-in's author can hold a component to, with pytest or without.

`strategies`, `evaluators`, `spaces` and `data` have `CONTRACTS` and a `maker` each; the names here
are those of strategies.
"""

from evonas.testing.strategies import CONTRACTS, Make, maker

__all__ = ["CONTRACTS", "Make", "data", "evaluators", "maker", "spaces", "strategies"]
