"""Contracts that a plug-in's author can hold a strategy to, with pytest or without."""

from evonas.testing.strategies import CONTRACTS, Make, maker

__all__ = ["CONTRACTS", "Make", "maker"]
