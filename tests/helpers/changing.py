"""A network of a user's own whose steps differ, so that none may be replayed for another."""

from __future__ import annotations

import random

from torch import Tensor, nn
from torch.nn.functional import dropout


class Changing(nn.Module):
    """Draws random numbers in one of three ways, counts its calls, or waits for a value."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.calls = how, 0
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        if how != "module":
            del self.layers[1]

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "function":
            images = dropout(images, 0.5)
        elif self.how == "python":
            images = images * random.random()
        elif self.how == "counts":
            self.calls += 1
        elif self.how == "waits" and images.sum().item() > 0:
            images = images * 0.5
        logits: Tensor = self.layers(images)
        return logits
