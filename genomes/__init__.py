"""Genomes and their search spaces: what evolves. Needs NumPy and nothing else."""

from genomes.genome import Genome
from genomes.nasbench201 import NASBench201
from genomes.space import Edge, Gene, Graph, SearchSpace, Verbatim
from genomes.table import TableSpace

__all__ = [
    "Edge",
    "Gene",
    "Genome",
    "Graph",
    "NASBench201",
    "SearchSpace",
    "TableSpace",
    "Verbatim",
]
