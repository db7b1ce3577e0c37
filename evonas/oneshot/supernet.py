"""One network that holds all of a space, and shares their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evonas import registry
from evonas.core import Blueprint, UserError
from evonas.networks.decode import decode
from evonas.networks.ops import Zero
from evonas.oneshot.mixture import Mixture, path
from genomes import Genome, SearchSpace


class MixedOp(nn.Module):
    """All candidates of a gene at one place of the network: y = sum_k w_k op_k(x).

    Args:
        current: what the supernet computes; shared by all its mixed ops.
    """

    def __init__(self, gene: str, candidates: Mapping[str, Any], current: CurrentMixture) -> None:
        super().__init__()
        self.gene = gene
        self.current = current
        ops = [make() for make in candidates.values()]
        if not all(isinstance(op, nn.Module) for op in ops):
            raise UserError(
                f"space: a candidate of {gene} makes no torch.nn.Module; "
                "allowed in a supernet: candidates that are layers"
            )
        self.ops = nn.ModuleList(ops)

    def forward(self, x: Tensor) -> Tensor | None:
        """The sum over what the mixture has of the gene; None where that is nothing."""
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
                    f"space: candidates of {self.gene} give {_shape(total)} and {_shape(term)}; "
                    "allowed in a supernet: candidates whose outputs are of one shape"
                )
            total = term if total is None else total + term
        return total


class CurrentMixture:
    """The mixture that a supernet computes now."""

    def __init__(self) -> None:
        self.mixture: Mixture = {}


class Shared(Protocol):
    """A supernet, whatever it is that its networks share."""

    def take(self, genome: Genome) -> None:
        """From now on, the network of this genome is computed."""

    def inherited(self, genome: Genome) -> dict[str, Tensor]:
        """The state of the decoded network of a genome, with the shared weights."""


class Supernet(nn.Module):
    """The network of a space with all candidates at each of its genes (Pham et al., 2018).

    Built by the space's own builder, whose `pick` gives a MixedOp.

    Attributes:
        ops: for each gene that chooses an op its choices.
        wires: the genes that only say which ops are live.

    Raises:
        UserError: a gene chooses something else than an op.
    """

    def __init__(
        self, space: SearchSpace, blueprint: Blueprint, settings: Mapping[str, Any], **ends: int
    ) -> None:
        super().__init__()
        self.space = space
        self.current = CurrentMixture()
        self.ops: dict[str, tuple[str, ...]] = {}
        self.wires: set[str] = set()
        assert blueprint.build is not None

        def pick(gene: str, candidates: Mapping[str, Any]) -> MixedOp | None:
            if not all(callable(candidate) for candidate in candidates.values()):
                if blueprint.wired:
                    self.wires.add(gene)
                    return None
                _refuse(space, f"its gene {gene} chooses no op")
            self.ops[gene] = tuple(candidates)
            return MixedOp(gene, candidates, self.current)

        self.network: nn.Module = blueprint.build(pick, **ends, **settings)
        self._places = {
            f"{name}." if name else "": module
            for name, module in self.network.named_modules(remove_duplicate=False)
            if isinstance(module, MixedOp)
        }

    def forward(self, images: Tensor) -> Any:
        """Logits, (n, classes), of what has been taken or mixed."""
        return self.network(images)

    def mix(self, mixture: Mixture) -> None:
        """From now on, this is computed."""
        self.current.mixture = mixture

    def take(self, genome: Genome) -> None:
        self.mix(path(self.space, genome))

    def mixed_ops(self) -> Mapping[str, MixedOp]:
        """Each place of a gene in the network, by its name there."""
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
    """Tensors as large as any network of the space has them, of which each uses the first channels
    (Yu et al., 2019, slimmable networks).
    """

    def __init__(self, space: SearchSpace, settings: Mapping[str, Any], **ends: int) -> None:
        super().__init__()
        self.space = space
        self._settings = {**settings, **ends}
        self.tensors = nn.ParameterDict()
        widest = [max(range(count), key=lambda i: _width(space, i)) for count in space.choices]
        narrow = [min(range(count), key=lambda i: _width(space, i)) for count in space.choices]
        # Where the width changes a shortcut has weights, and where it stays it has none: together
        # these have all tensors, each gene being the widest on one side of some change.
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
        """Logits, (n, classes), of what has been taken."""
        [network] = self._taken
        return functional_call(network.train(self.training), self._slices(network), (images,))

    def take(self, genome: Genome) -> None:
        with torch.device("meta"):  # its shapes are all that is used
            self._taken = [decode(self.space, genome, **self._settings)]  # in a list: no part of us

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
    """The supernet of a space, with fresh weights from torch's global generator.

    Args:
        settings: of the network, such as `channels`.

    Raises:
        UserError: the space has none.
    """
    blueprint = registry.blueprint_of(space)
    if blueprint.build is None or blueprint.shares is None:
        _refuse(space, "its genes choose no ops")
    checked = blueprint.settings(space, settings)
    ends = {"in_channels": in_channels, "classes": classes}
    if blueprint.shares == "slices":
        return SlicedSupernet(space, checked, **ends)
    return Supernet(space, blueprint, checked, **ends)


def _refuse(space: SearchSpace, why: str) -> NoReturn:
    raise UserError(
        f"space.name: {space.title} has no supernet, since {why}; "
        "allowed: a space whose genes choose ops, such as nasbench201, darts or chain"
    )


def _width(space: SearchSpace, choice: int) -> int:
    return int(space.genes[0].choices[choice])


def _joined(one: Tensor | None, other: Tensor) -> Tensor:
    """A tensor as large as both; what neither has is drawn as a convolution's weights are."""
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
