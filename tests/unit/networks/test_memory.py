"""The memory that a network needs to classify an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evonas.networks.memory import peak_memory

SHAPE = (1, 8, 8)
FLOAT = 4  # bytes


def small(*, inplace: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(2),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


@pytest.mark.parametrize("inplace", [False, True])
def test_it_is_the_weights_and_the_largest_sum_of_what_is_read_and_written(inplace: bool) -> None:
    weights = 18 + 4 * 2 + (72 + 4) + (64 * 3 + 3)
    # The image and what the first convolution makes of it: 64 + 128. The second: 128 + 64.
    assert peak_memory(small(inplace=inplace), SHAPE) == FLOAT * (weights + 192)


class Residual(nn.Module):
    """Adds what a convolution makes of an image to the image."""

    def __init__(self, convolutions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(convolutions))
        )

    def forward(self, images: Tensor) -> Tensor:
        return images + self.body(images)


@pytest.mark.parametrize(("convolutions", "images"), [(1, 2), (2, 3), (3, 3)])
def test_what_a_later_layer_reads_is_still_needed(convolutions: int, images: int) -> None:
    # With two convolutions, the second reads and writes while the image is kept.
    assert peak_memory(Residual(convolutions), SHAPE) == FLOAT * (9 * convolutions + 64 * images)


def test_a_function_of_single_elements_needs_room_if_what_it_reads_is_read_again() -> None:
    class Gated(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * images.sigmoid()

    assert peak_memory(Gated(), SHAPE) == FLOAT * 2 * 64
    assert peak_memory(nn.Sigmoid(), SHAPE) == FLOAT * 64


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = small().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    peak_memory(network, SHAPE)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
