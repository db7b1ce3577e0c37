"""The supernet: one network that contains all networks of a space, which share its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evonas import registry
from evonas.core import Blueprint, UserError, by_name
from evonas.networks.decode import decode
from evonas.networks.ops import Zero
from evonas.oneshot.mixture import Mixture, path
from genomes import Genome, SearchSpace


class MixedOp(nn.Module):
    """All candidates of a gene at one place of the network: y = sum_k w_k op_k(x).

    Args:
        current: the mixture that the supernet computes, shared by all its mixed ops.
    """

    def __init__(self, gene: str, candidates: Mapping[str, Any], current: CurrentMixture) -> None:
        super().__init__()
        self.gene = gene
        self.current = current
        ops = [make() for make in candidates.values()]
        if not all(isinstance(op, nn.Module) for op in ops):
            raise UserError(
                f"a candidate of {gene} is no torch.nn.Module",
                hint="in a supernet, all candidates must be layers",
                key="space",
            )
        self.ops = nn.ModuleList(ops)

    def forward(self, x: Tensor) -> Tensor | None:
        """Return the sum over the gene's ops in the mixture; None if it has none."""
        total: Tensor | None = None
        for choice, weight in self.current.mixture.get(self.gene, ()):
            op = self.ops[choice]
            if isinstance(op, Zero):
                continue
            term = op(x)
            if not (isinstance(weight, float) and weight == 1.0):
                term = weight * term
            if total is not None and total.shape != term.shape:
                raise UserError(
                    f"candidates of {self.gene} give outputs of {_shape(total)} and {_shape(term)}",
                    hint="in a supernet, all outputs of a gene must have one shape",
                    key="space",
                )
            total = term if total is None else total + term
        return total


class CurrentMixture:
    """The mixture that a supernet computes at present."""

    def __init__(self) -> None:
        self.mixture: Mixture = {}


class Shared(Protocol):
    """A supernet, whose networks share ops or slices of tensors."""

    def take(self, genome: Genome) -> None:
        """Compute the network of this genome from now on."""

    def inherited(self, genome: Genome) -> dict[str, Tensor]:
        """Return the state of the decoded network of a genome, with the shared weights."""


class Supernet(nn.Module):
    """The network of a space with all candidates at each of its genes (Pham et al., 2018).

    The space's own builder builds it, with a `pick` that returns a MixedOp.

    Attributes:
        ops: the choices of each gene that chooses an op.
        wires: the genes that only decide which ops are live.

    Raises:
        UserError: a gene chooses something other than an op.
    """

    def __init__(
        self,
        space: SearchSpace,
        blueprint: Blueprint,
        settings: Mapping[str, Any],
        **interface: int,
    ) -> None:
        super().__init__()
        self.space = space
        self.current = CurrentMixture()
        self.ops: dict[str, tuple[str, ...]] = {}
        self.wires: set[str] = set()
        assert blueprint.build is not None

        def pick(gene: str, candidates: Any) -> MixedOp | None:
            candidates = by_name(candidates)
            if not all(callable(candidate) for candidate in candidates.values()):
                if blueprint.wired:
                    self.wires.add(gene)
                    return None
                raise _refused(space, f"its gene {gene} chooses no op")
            self.ops[gene] = tuple(candidates)
            return MixedOp(gene, candidates, self.current)

        self.network: nn.Module = blueprint.build(pick, **interface, **settings)
        self._places = {
            f"{name}." if name else "": module
            for name, module in self.network.named_modules(remove_duplicate=False)
            if isinstance(module, MixedOp)
        }

    def forward(self, images: Tensor) -> Any:
        """Return the logits, (n, classes), of the current mixture."""
        return self.network(images)

    def mix(self, mixture: Mixture) -> None:
        """Compute this mixture from now on."""
        self.current.mixture = mixture

    def take(self, genome: Genome) -> None:
        self.mix(path(self.space, genome))

    def mixed_ops(self) -> Mapping[str, MixedOp]:
        """Return the mixed ops by their names in the network."""
        return {name.removesuffix("."): module for name, module in self._places.items()}

    def inherited(self, genome: Genome) -> dict[str, Tensor]:
        chosen = {gene: terms[0][0] for gene, terms in path(self.space, genome).items()}
        state = {}
        for name, tensor in self.network.state_dict().items():
            place = next((p for p in self._places if name.startswith(f"{p}ops.")), None)
            if place is None:
                state[name] = tensor
                continue
            number, _, rest = name.removeprefix(f"{place}ops.").partition(".")
            if chosen.get(self._places[place].gene) == int(number):
                state[place + rest] = tensor
        return state


class SlicedSupernet(nn.Module):
    """A supernet of tensors as large as in any network of the space, of which each network uses the
    first channels (Yu et al., 2019, slimmable networks).
    """

    def __init__(self, space: SearchSpace, settings: Mapping[str, Any], **interface: int) -> None:
        super().__init__()
        self.space = space
        self._settings = {**settings, **interface}
        self.tensors = nn.ParameterDict()
        widest = [max(range(count), key=lambda i: _width(space, i)) for count in space.choices]
        narrow = [min(range(count), key=lambda i: _width(space, i)) for count in space.choices]
        # A shortcut has weights only where the width changes. Together these networks have all
        # tensors, since each gene is the widest on one side of some change.
        mixed = [narrow[i] if i % 2 else wide for i, wide in enumerate(widest)]
        other = [wide if i % 2 else narrow[i] for i, wide in enumerate(widest)]
        tensors: dict[str, Tensor] = {}
        parameters: set[str] = set()
        for genes in (widest, mixed, other):
            network = decode(space, space.genome(genes), **self._settings)
            parameters |= {name for name, _ in network.named_parameters()}
            for name, tensor in network.state_dict().items():
                tensors[name] = _joined(tensors.get(name), tensor)
        for name, tensor in tensors.items():
            trained = name in parameters
            self.tensors[_key(name)] = nn.Parameter(tensor, requires_grad=trained)
        self.take(space.genome(widest))

    def forward(self, images: Tensor) -> Any:
        """Return the logits, (n, classes), of the current network."""
        [network] = self._current
        return functional_call(network.train(self.training), self._slices(network), (images,))

    def take(self, genome: Genome) -> None:
        with torch.device("meta"):  # only its shapes are used
            network = decode(self.space, genome, **self._settings)
        self._current = [network]  # in a list, so that it is no submodule

    def inherited(self, genome: Genome) -> dict[str, Tensor]:
        with torch.device("meta"):
            network = decode(self.space, genome, **self._settings)
        return {name: t.detach() for name, t in self._slices(network).items()}

    def _slices(self, network: nn.Module) -> dict[str, Tensor]:
        return {
            name: self.tensors[_key(name)][tuple(slice(size) for size in tensor.shape)]
            for name, tensor in network.state_dict(keep_vars=True).items()
        }


def supernet(
    space: SearchSpace, *, in_channels: int, classes: int, **settings: Any
) -> Supernet | SlicedSupernet:
    """Build the supernet of a space, with fresh weights from torch's global generator.

    Args:
        settings: the settings of the network, such as `channels`.

    Raises:
        UserError: the space has no supernet.
    """
    blueprint = registry.blueprint_of(space)
    if blueprint.build is None or blueprint.shares is None:
        raise _refused(space, "its genes choose no ops")
    checked = blueprint.settings(space, settings)
    interface = {"in_channels": in_channels, "classes": classes}
    if blueprint.shares == "slices":
        return SlicedSupernet(space, checked, **interface)
    return Supernet(space, blueprint, checked, **interface)


def _refused(space: SearchSpace, why: str) -> UserError:
    return UserError(
        f"{space.title} has no supernet, since {why}",
        hint="use a space whose genes choose ops, such as nasbench201, darts or chain",
        key="space.name",
    )


def _width(space: SearchSpace, choice: int) -> int:
    return int(space.genes[0].choices[choice])


def _joined(one: Tensor | None, other: Tensor) -> Tensor:
    """Return a tensor as large as both; elements of neither are drawn as for a convolution."""
    if one is None or one.shape == other.shape:
        return other if one is None else one
    shape = [max(pair) for pair in zip(one.shape, other.shape, strict=True)]
    joined = torch.empty(shape, dtype=one.dtype)
    if len(shape) > 1:
        nn.init.kaiming_uniform_(joined, a=5**0.5)
    for tensor in (one, other):
        joined[tuple(slice(size) for size in tensor.shape)] = tensor
    return joined


def _key(name: str) -> str:
    return name.replace(".", "/")  # the names of parameters have no dots


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
