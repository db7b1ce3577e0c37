"""The cost of a network, known without training it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evonas.eager import Flops


@dataclass(frozen=True, slots=True)
class Profile:
    """The size of a network and its work for one image.

    Attributes:
        params: the number of trainable parameters.
        flops: multiply-adds of convolutions and linear layers for one image, biases included; batch
            norm, activations and pooling are not counted (the rule of NAS-Bench-201).
    """

    params: int
    flops: int


def profile(network: nn.Module, image_shape: tuple[int, int, int]) -> Profile:
    """Return params and FLOPs of a network for one (channels, height, width) image, on any device.

    torch's counter counts a multiply-add as two operations and leaves biases out; this halves its
    count and adds one addition per output of each layer with a bias.
    """
    biases = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal biases
        biases += output.numel()

    biased = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
    ]
    hooks = [module.register_forward_hook(count) for module in biased]
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad(), Flops() as counter:
            network.eval()(torch.zeros(1, *image_shape, device=device))
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Profile(params, counter.total // 2 + biases)
