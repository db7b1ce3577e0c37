"""Strategies against a table of trained networks, over many seeds."""
