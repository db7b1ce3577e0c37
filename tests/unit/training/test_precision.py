"""Layers that a CPU computes faster in float32 do so within a training in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from evonas.training.loop import Hardware
from evonas.training.precision import is_slow_in_bfloat16

BFLOAT16 = Hardware(precision="bfloat16")
SLOW = {
    "depthwise 5x5": lambda: nn.Conv2d(8, 8, 5, padding=2, groups=8),
    "depthwise 3x3, stride 2": lambda: nn.Conv2d(8, 8, 3, 2, padding=1, groups=8),
    "depthwise 3x3, dilated": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
    "average pooling that overlaps": lambda: nn.AvgPool2d(3, stride=1, padding=1),
    "group norm": lambda: nn.GroupNorm(2, 8),
}
FAST = {
    "convolution": lambda: nn.Conv2d(8, 8, 5, padding=2),
    "depthwise 3x3": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
    "grouped convolution": lambda: nn.Conv2d(8, 8, 5, padding=2, groups=2),
    "convolution of one channel": lambda: nn.Conv2d(1, 8, 5, padding=2),
    "average pooling": lambda: nn.AvgPool2d(2),
    "batch norm": lambda: nn.BatchNorm2d(8),
    "ReLU": nn.ReLU,
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_layers_compute_in_float32_and_hand_on_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    layer = SLOW[name]()
    images = torch.randn(4, 8, 9, 9).bfloat16()
    exact = layer(images.float())
    with BFLOAT16.autocast():
        rounded_before = layer(images).float()
    BFLOAT16.place(BFLOAT16.place(layer))
    with BFLOAT16.autocast():
        found = layer(images)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())
    assert (found.float() - exact).abs().max() <= (rounded_before - exact).abs().max()
    assert torch.equal(layer(images.float()), exact)  # outside of autocast nothing has changed


@pytest.mark.parametrize("name", FAST)
def test_other_layers_are_left_as_they_are(name: str) -> None:
    layer = BFLOAT16.place(FAST[name]())
    assert not is_slow_in_bfloat16(layer)
    assert "forward" not in vars(layer)


def test_float32_and_gpus_leave_every_layer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)
    for hardware in (Hardware(), Hardware("cuda", precision="bfloat16")):
        assert "forward" not in vars(hardware.place(SLOW["depthwise 5x5"]()))


def test_a_copy_computes_with_its_own_weights() -> None:
    network = BFLOAT16.place(nn.Sequential(SLOW["depthwise 5x5"]()))
    copied = copy.deepcopy(network)
    images = torch.ones(1, 8, 6, 6)
    before = network(images)
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
    zeros: Tensor = network(images)
    assert zeros.abs().sum() == 0
    assert torch.equal(copied(images), before)


def test_gradients_are_those_of_float32_rounded() -> None:
    torch.manual_seed(0)
    layer = SLOW["depthwise 5x5"]()
    images = torch.randn(4, 8, 9, 9)
    layer(images).square().sum().backward()
    exact = layer.weight.grad
    layer.weight.grad = None
    BFLOAT16.place(layer)
    with BFLOAT16.autocast():
        layer(images).float().square().sum().backward()
    assert torch.allclose(layer.weight.grad, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))
