"""Pointwise convolutions with a stride, of which oneDNN's backward pass may write out of bounds.

On x86 CPUs without AVX-512, with float32 and the channels last, its gradient of the weights damages
the heap where few channels are read (torch 2.13.0, oneDNN 3: from 1 to 6 of them, in all sizes that
were tried). The process then dies at any later moment, or goes on with wrong numbers.
"""

from __future__ import annotations

from functools import partial
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.functional import conv2d

FEW = 8  # channels: all that were seen to fail are below, and slicing fewer of them costs little


def avoid_strided(network: nn.Module) -> None:
    """Lets such layers read every other pixel themselves, and then convolve without a stride.

    The result is the same. Nothing is done to a layer twice.
    """
    for module in network.modules():
        if is_at_risk(module) and "forward" not in vars(module):
            module.forward = partial(_sliced, module)  # type: ignore[method-assign]  # of this one


def is_at_risk(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Returns whether a layer is a pointwise convolution with a stride, of few channels."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.padding in ((0, 0), "valid")
        and layer.in_channels // layer.groups < FEW
    )


def _sliced(layer: nn.Conv2d, x: Tensor) -> Tensor:
    rows, columns = layer.stride
    read = x[..., ::rows, ::columns]
    return conv2d(read, layer.weight, layer.bias, groups=layer.groups)
