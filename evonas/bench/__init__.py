"""Benchmarks: strategies on a table of trained networks, over many seeds."""
