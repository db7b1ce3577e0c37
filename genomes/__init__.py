"""Genomes, which evolve, and their search spaces. Needs only NumPy."""

from genomes.chain import Chain
from genomes.channels import Channels
from genomes.darts import Darts
from genomes.genome import Genome
from genomes.macro import Macro
from genomes.nasbench201 import NASBench201
from genomes.space import Edge, Gene, Graph, OtherSpace, SearchSpace, Verbatim
from genomes.stages import Stages
from genomes.table import TableSpace

__all__ = [
    "Chain",
    "Channels",
    "Darts",
    "Edge",
    "Gene",
    "Genome",
    "Graph",
    "Macro",
    "NASBench201",
    "OtherSpace",
    "SearchSpace",
    "Stages",
    "TableSpace",
    "Verbatim",
]
