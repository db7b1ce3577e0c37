"""What is computed in float32 where a training on a CPU is in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def spare_slow_layers(network: nn.Module) -> None:
    """Lets the layers that a CPU computes faster in float32 do so within autocast, in place.

    Their inputs are turned into float32 and their output into bfloat16, so that what reads it is
    fast. Outside of autocast they are what they were. Nothing is done to a layer twice.
    """
    for module in network.modules():
        if is_slow_in_bfloat16(module) and "forward" not in vars(module):
            module.forward = partial(_in_float32, module.forward)


def is_slow_in_bfloat16(layer: nn.Module) -> bool:
    """Returns whether torch's kernels for x86 CPUs take longer for a layer in bfloat16.

    For most depthwise convolutions, oneDNN has no backward pass in bfloat16 but its reference
    (it has one for 3x3 with stride 1), and torch adds up the gradients of poolings that overlap,
    and those of group norms, one number at a time. `docs/performance.md` has measurements.
    """
    if isinstance(layer, nn.Conv2d):
        plain = (*layer.stride, *layer.dilation) == (1, 1, 1, 1) and max(layer.kernel_size) <= 3
        return layer.groups == layer.in_channels > 1 and not plain
    if isinstance(layer, nn.AvgPool2d):
        return layer.stride != layer.kernel_size
    return isinstance(layer, nn.GroupNorm)


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        return forward(x)
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float()).bfloat16()
