"""torch without its compiler gives what torch gives."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from evonas import eager

UNUSED = """
import sys
import torch
from torch import nn
from evonas.eager import SGD, Flops
network = nn.Linear(2, 2)
with torch.no_grad(), Flops():
    network(torch.ones(1, 2))
optimizer = SGD(network.parameters(), momentum=0.9)
network(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""


class Network(nn.Module):
    """Layers, and functions that no layer stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, groups=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.linear = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.relu(self.norm(self.grouped(self.conv(images))))
        places = maps.flatten(2).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(places, places, places)
        mixed, _ = self.attention(mixed, mixed, mixed)
        logits: Tensor = self.linear(torch.einsum("npc,cd->nd", mixed, torch.ones(8, 8)))
        return logits


def test_a_training_imports_no_compiler() -> None:
    subprocess.run([sys.executable, "-c", UNUSED], check=True)


def test_flops_are_those_of_torchs_counter() -> None:
    network = Network().eval()
    images = torch.zeros(1, 3, 9, 7)
    with torch.no_grad(), FlopCounterMode(display=False) as expected:
        network(images)
    with torch.no_grad(), eager.Flops() as counter:
        network(images)
    assert counter.total == expected.get_total_flops() > 0


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (eager.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (eager.Adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.999)}),
        (eager.AdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    ],
)
def test_steps_are_those_of_torchs_optimizer(
    ours: type[torch.optim.Optimizer],
    theirs: type[torch.optim.Optimizer],
    settings: dict[str, object],
) -> None:
    weights = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        network = nn.Linear(4, 3)
        optimizer = kind(network.parameters(), **settings)  # type: ignore[arg-type]
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.randn(5, 4)).square().sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        weights.append(network.weight)
    assert torch.equal(*weights)
