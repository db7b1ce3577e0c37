"""Zero-cost proxies: what a network with initial weights tells of how well it will be trained.

Each is computed from one batch of images or none, and larger is better. Where a proxy says nothing
about a network, such as `nwot` of one without ReLUs, its value is NaN or minus infinity.

All take a network that nothing else uses, since they change it. Only weights count: parameters of
more than one dimension, so neither biases nor what scales in a norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

BATCH = 64  # images, as in the published comparisons (Abdelfattah et al., 2021)
EPSILON = 1e-5  # of jacov, as in its paper
STEP = 0.01  # of zen, as in its paper

Proxy = Callable[[nn.Module, Tensor, Tensor], float]


def measured(
    build: Callable[[], nn.Module],
    names: Collection[str],
    images: Tensor,
    labels: Tensor,
    seed: int,
) -> dict[str, float]:
    """Return the proxies of these names, each of a network built anew with the same weights.

    Args:
        build: returns the network on the CPU, with weights from torch's global generator.
        images: (n, c, h, w), normalised, float32; the network is run on their device.
        labels: (n,), on the same device.
        seed: of the weights, and of what a proxy or the network draws.
    """
    values = {}
    for name in names:
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(seed)
            network = build().to(images.device)
            try:
                values[name] = PROXIES[name](_at_work(network), images, labels)
            except Exception as error:  # a network of the user's may raise anything
                error.add_note(f"(in {name})")
                raise
    return values


def nwot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How differently images pass the ReLUs (NASWOT; Mellor et al., 2021, sec. 3, eq. 2).

    log |det K|, where K[i, j] counts the ReLUs that images i and j both pass or both do not. Minus
    infinity if two images pass the same ones; NaN if there are no ReLUs.
    """
    with torch.no_grad(), _Codes(len(images)) as codes:
        network(images)
    return float(torch.linalg.slogdet(codes.alike)[1]) if codes.units else math.nan


def jacov(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How little the gradients of the images resemble each other (Mellor et al., 2020, sec. 3).

    The paper is the first version of NASWOT's: -sum of log(s + k) + 1 / (s + k) over the
    eigenvalues s of the correlation matrix of the images' gradients, with k = 1e-5; an image's
    gradient is that of the sum of its logits. NaN if an image has a constant one.
    """
    images = images.clone().requires_grad_()
    logits = _logits(network(images))
    if not logits.requires_grad:
        return math.nan
    (gradient,) = torch.autograd.grad(logits.sum(), images, allow_unused=True)
    if gradient is None:
        return math.nan
    correlation = torch.corrcoef(gradient.flatten(1).double())
    if not correlation.isfinite().all():
        return math.nan
    shifted = torch.linalg.eigvalsh(correlation) + EPSILON
    return float(-(shifted.log() + 1 / shifted).sum())


def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The loss that hangs on the weights (Lee et al., 2019, eq. 4; summed as by Abdelfattah et al.,
    2021, eq. 1): the sum of |w dL/dw|, of the cross-entropy L. NaN without weights.
    """
    gradients = _gradients(network, images, labels)
    return _sum((weight.detach() * gradient).abs().sum() for weight, gradient in gradients)


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The sum of the Euclidean norms of the gradients of the weights, a tensor each, of the
    cross-entropy (Abdelfattah et al., 2021, sec. 3.1). NaN without weights.
    """
    return _sum(gradient.norm() for _, gradient in _gradients(network, images, labels))


def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How much passes through the paths of weights, whatever the images (Tanaka et al., 2020, eq.
    4; summed as by Abdelfattah et al., 2021).

    The natural logarithm of the sum of w dR/dw, where R is the sum of the logits of an image of
    ones, and all weights have their absolute values. Biases are 0, and batch norms do as in a
    measurement, which at the beginning is next to nothing. In float64, for R is a product over
    layers. Minus infinity if nothing passes.
    """
    network.double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            _ = parameter.zero_() if name.endswith("bias") else parameter.abs_()
    ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
    passed = _logits(network(ones)).sum()
    total = _sum((w.detach() * g).sum() for w, g in _derived(passed, network))
    return _log(total)


def zen(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How much the features change with the input (Zen-score; Lin et al., 2021, algorithm 1).

    log of the mean of |f(x) - f(x + 0.01 e)|, plus, for each batch norm, log of the root of the
    mean variance of the channels that it divides by. f is the last feature map, or the logits where
    there is none; x and e are as many images of normal noise as there are of the data, and weights
    are normal too. Skip connections stay, which the paper leaves out. Minus infinity if the
    features or the logits are constant.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_()
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        x, noise = torch.randn_like(images), torch.randn_like(images)
        before, scales = _features(network, x)
        after, _ = _features(network, x + STEP * noise)
        if torch.equal(before[-1], after[-1]):  # the logits: the map does not reach them
            return -math.inf
        change = (after[0] - before[0]).flatten(1).double().norm(dim=1).mean().item()
    return _log(change) + sum(map(_log, scales))


PROXIES: dict[str, Proxy] = {
    "nwot": nwot,
    "synflow": synflow,
    "jacov": jacov,
    "snip": snip,
    "grad_norm": grad_norm,
    "zen": zen,
}
UNDEFINED = {
    "nwot": "it has no ReLUs, or two images pass the same ones",
    "synflow": "nothing passes through its weights",
    "jacov": "an image has the same part in all logits, or none",
    "snip": "no weights have a part in its logits",
    "grad_norm": "no weights have a part in its logits",
    "zen": "its features are constant",
}


def undefined(values: Mapping[str, float]) -> str:
    """Return why a proxy among some values says nothing of its network; "" if all say something."""
    for name in PROXIES:
        value = values.get(name, 0.0)
        if not math.isfinite(value):
            return f"{name} is {value}: {UNDEFINED[name]}"
    return ""


class _Codes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Compares which ReLUs n images pass, in modules and functions alike.

    Attributes:
        alike: (n, n), for how many ReLUs two images are on the same side.
        units: the number of ReLUs of an image.
    """

    def __init__(self, n: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.n = n
        self.units = 0
        self.alike = torch.zeros(n, n, dtype=torch.float64)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in RELUS and len(output) == self.n:
            passed = (output > 0).flatten(1).float()
            stopped = 1 - passed
            self.alike += (passed @ passed.T + stopped @ stopped.T).cpu()
            self.units += passed.shape[1]
        return output


RELUS = {
    *(torch.ops.aten.relu, torch.ops.aten.relu_, torch.ops.aten.leaky_relu),
    *(torch.ops.aten.leaky_relu_, torch.ops.aten.hardtanh, torch.ops.aten.hardtanh_),  # of ReLU6
}


def _at_work(network: nn.Module) -> nn.Module:
    """Return a network as it is in training, but without dropout, which would add noise."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    return network


def _logits(output: Any) -> Tensor:
    """Return the logits, (n, classes), without those of an auxiliary classifier."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def _gradients(
    network: nn.Module, images: Tensor, labels: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each weight, and the gradient of the cross-entropy of a batch."""
    return _derived(cross_entropy(_logits(network(images)), labels), network)


def _derived(value: Tensor, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each weight on which a value depends, and its gradient."""
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    if not weights or not value.requires_grad:
        return
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            yield weight.detach(), gradient


def _features(network: nn.Module, images: Tensor) -> tuple[list[Tensor], list[float]]:
    """Return the last feature map, if any, then the logits; and by how much batch norms divide.

    The map is the last output of a module that is one, (n, c, h, w), before it is pooled over all
    places.
    """
    maps: list[Tensor] = []
    scales: list[float] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and not isinstance(module, POOLS):
            maps[:] = [output]
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            variance = inputs[0].transpose(0, 1).flatten(1).double().var(dim=1, correction=0)
            scales.append(variance.mean().sqrt().item())

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    logits = _logits(network(images))
    for hook in hooks:
        hook.remove()
    return [*maps, logits], scales


POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def _sum(parts: Iterable[Tensor]) -> float:
    """Return the sum of some scalars; NaN of none."""
    added = [part.double() for part in parts]
    return torch.stack(added).sum().item() if added else math.nan


def _log(number: float) -> float:
    """Return the natural logarithm; minus infinity of 0."""
    return math.log(number) if number > 0 else -math.inf if number == 0 else math.nan
