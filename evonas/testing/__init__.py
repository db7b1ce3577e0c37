"""Contracts that the author of a plug-in can check a strategy against, with or without pytest."""

from evonas.testing.strategies import CONTRACTS, Make, maker

__all__ = ["CONTRACTS", "Make", "maker"]
