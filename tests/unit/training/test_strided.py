"""Pointwise convolutions with a stride of few channels, which damage the memory of some CPUs."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from evonas.training.loop import Hardware
from evonas.training.strided import is_at_risk

LAST = Hardware(channels_last=True)
HEAP = {**os.environ, "MALLOC_CHECK_": "3"}  # glibc looks at the heap whenever memory is freed
TRAINED = """
import torch
from evonas.networks.stages import STAGES
from evonas.networks.decode import decode
from evonas.training.loop import Hardware
from genomes import Stages

torch.set_num_threads(1)
space = Stages(resolution=8)
genome = space.parse("stem4 | residual3 x1 w1 | residual3 x1 w2 /2 | conv3 x1 w2 | head0")
network = Hardware(channels_last=True).place(decode(space, genome, in_channels=1, classes=2))
for _ in range(40):
    images = torch.randn(16, 1, 8, 8).to(memory_format=torch.channels_last)
    network(images).sum().backward()
"""


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("stride", "groups"), [(2, 1), ((1, 3), 1), (2, 2)])
def test_the_result_and_the_gradients_are_those_of_the_convolution(
    stride: int | tuple[int, int], groups: int, bias: bool
) -> None:
    plain = nn.Conv2d(4, 8, 1, stride, groups=groups, bias=bias)
    placed = LAST.place(copy.deepcopy(plain))
    assert "forward" in vars(placed)
    for each in (placed, copy.deepcopy(placed)):
        images = torch.randn(3, 4, 7, 9)
        for layer in (plain, each):
            layer.zero_grad()
        outputs = [layer(images) for layer in (plain, each)]
        assert outputs[0].shape == outputs[1].shape
        assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
        for output in outputs:
            output.square().sum().backward()
        gradients = ([p.grad for p in layer.parameters()] for layer in (plain, each))
        for one, other in zip(*gradients, strict=True):
            assert one is not None
            assert other is not None
            assert torch.allclose(one, other, atol=1e-4)


def test_other_layers_stay_as_they_are() -> None:
    for layer in (
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3, 2, padding=1),
        nn.Conv2d(4, 8, 1, 2, padding=1),
        nn.Conv2d(32, 8, 1, 2),
        nn.BatchNorm2d(4),
    ):
        assert not is_at_risk(layer)
        assert "forward" not in vars(LAST.place(layer))
    at_risk = nn.Conv2d(4, 8, 1, 2)
    assert "forward" not in vars(Hardware().place(at_risk))  # with the channels first, all is well
    assert is_at_risk(nn.Conv2d(4, 8, 1, 2, padding="valid"))


def test_a_network_with_such_layers_leaves_the_heap_as_it_is() -> None:
    """On a CPU without AVX-512 this process died before."""
    done = subprocess.run(
        [sys.executable, "-c", TRAINED], env=HEAP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
