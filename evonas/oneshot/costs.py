"""The sizes of a supernet's ops, from which those of its networks are summed up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from evonas.metrics import FLOPS, PARAMS
from evonas.networks.profile import profile
from evonas.oneshot.latency import inputs
from evonas.oneshot.mixture import Alphas, path
from evonas.oneshot.supernet import Supernet
from genomes import Genome

SIZES = (PARAMS.name, FLOPS.name)

OpSizes = Mapping[str, Mapping[str, list[int]]]  # by metric and gene, one number per choice


def op_sizes(shared: Supernet, image_shape: tuple[int, int, int]) -> OpSizes:
    """Count the params and FLOPs of each choice of each gene, over all its places.

    Args:
        shared: a supernet whose parameters are all trainable; its mixture and mode are changed.
        image_shape: (channels, height, width).
    """
    sizes = {name: {gene: [0] * len(ops) for gene, ops in shared.ops.items()} for name in SIZES}
    counted = set()
    device = next(shared.parameters()).device
    with torch.no_grad():
        places = inputs(shared, torch.zeros(1, *image_shape, device=device))
    for mixed, (_, channels, height, width) in places.values():
        for k, op in enumerate(mixed.ops):
            size = profile(op, (channels, height, width))
            sizes[FLOPS.name][mixed.gene][k] += size.flops
            if op not in counted:  # an op at two places has its params once
                sizes[PARAMS.name][mixed.gene][k] += size.params
                counted.add(op)
    return sizes


def expected_share(sizes: Mapping[str, list[int]], alphas: Alphas) -> Tensor:
    """Return the expected size of all ops as a share of the largest possible, (), for ops drawn
    with probability softmax(alpha).
    """
    largest = sum(max(each) for each in sizes.values())
    expected = [
        alpha.softmax(dim=0) @ alpha.new_tensor(sizes[gene]) for gene, alpha in alphas.items()
    ]
    return torch.stack(expected).sum() / max(largest, 1)


class NetworkSizes:
    """The params and FLOPs of networks, summed up from their ops: far faster than to build them.

    Args:
        measured: the params and FLOPs of a genome's network, measured on the network itself.
        samples: genomes on which the sums are compared with that.

    Attributes:
        exact: whether the sums are right for all samples. They are not if the rest of the network
            depends on the choices, as in some spaces of a user's own.
    """

    def __init__(
        self,
        shared: Supernet,
        image_shape: tuple[int, int, int],
        measured: Callable[[Genome], Mapping[str, float]],
        samples: list[Genome],
    ) -> None:
        self.space = shared.space
        self._ops = op_sizes(shared, image_shape)
        self._rest = dict.fromkeys(SIZES, 0.0)
        first, sums = measured(samples[0]), self.of(samples[0])
        self._rest = {name: first[name] - sums[name] for name in SIZES}
        self.exact = all(
            measured(genome)[name] == value
            for genome in samples
            for name, value in self.of(genome).items()
        )

    def of(self, genome: Genome) -> dict[str, float]:
        chosen = [(gene, terms[0][0]) for gene, terms in path(self.space, genome).items()]
        return {
            name: self._rest[name] + sum(ops[gene][k] for gene, k in chosen if gene in ops)
            for name, ops in self._ops.items()
        }
