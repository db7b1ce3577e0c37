"""What the paths from a graph's input to its output say of a network, as numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Path = tuple[int, ...]  # the ops on a path, in order
Node = TypeVar("Node", bound=Hashable)


def paths(edges: Mapping[Node, Sequence[tuple[Node, int | None]]], end: Node) -> list[Path]:
    """Return the ops on each path to a node of a directed acyclic graph.

    Args:
        edges: for each node, the edges that lead to it: their source, and the number of their op;
            None if it is none, such as a skip. A node that is no key is an input.
        end: the node.
    """
    if end not in edges:
        return [()]
    return [
        path if op is None else (*path, op)
        for source, op in edges[end]
        for path in paths(edges, source)
    ]


def path_features(found: Sequence[Path], ops: int, longest: int) -> NDArray[np.float64]:
    """Describe paths by their ops and their lengths.

    The number of paths with the same ops in the same order is the path encoding of White et al.
    (2021, BANANAS, sec. 3), which is cut off at a length as they advise. Half of log2(1 + number)
    is taken, so that paths that meet in many ways do not outweigh all else.

    Args:
        found: the paths.
        ops: the number of ops that a path may have.
        longest: the length of the longest paths that are told apart by their ops.

    Returns:
        (d,): for each sequence of ops up to that length, the paths of these ops; and the numbers of
        ops on the shortest and on the longest path, 0 if there is none.
    """
    columns = _columns(ops, longest)
    numbers = np.zeros(len(columns) + 2)
    for path, count in Counter(found).items():
        if len(path) <= longest:
            numbers[columns[path]] = 0.5 * np.log2(1 + count)
    if found:
        lengths = [len(path) for path in found]
        numbers[-2:] = min(lengths), max(lengths)
    return numbers


@cache
def _columns(ops: int, longest: int) -> dict[Path, int]:
    lengths: Iterator[Path] = itertools.chain.from_iterable(
        itertools.product(range(ops), repeat=length) for length in range(longest + 1)
    )
    return {path: place for place, path in enumerate(lengths)}
