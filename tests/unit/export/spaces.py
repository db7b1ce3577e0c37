"""Spaces as people write them, in a file of their own, since their source is read."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain

import torch
from torch import nn


def conv(channels, kernel=3):
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


def ends(channels, classes):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)


def plain(pick, *, in_channels, classes, channels=4):
    layers = [nn.Conv2d(in_channels, channels, 3, padding=1)]
    for i in range(4):
        layers.append(pick(f"layer{i}", {"conv": lambda: conv(channels), "skip": nn.Identity}))
    return nn.Sequential(*layers, *ends(channels, classes))


class Stage(nn.Sequential):
    """A container of its own, as torchvision has them."""

    def __init__(self, channels: int, *kernels: int, pool: bool = False) -> None:
        super().__init__(*(conv(channels, kernel) for kernel in kernels))
        if pool:
            self.append(nn.AvgPool2d(2, count_include_pad=False))


class Net(nn.Module):
    """Takes the pick, and has whatever a module can have.

    Args:
        pick: not there once it is taken away.
    """

    scale: torch.Tensor

    def __init__(self, pick, in_channels, classes, act=torch.relu):
        super().__init__()
        width = pick("width", {"4": 4, "6": 6})
        self.act, self.width = act, width
        self.order = {"first": (0,), "last": [1, None]}
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.stages = nn.ModuleList(Stage(width, 1, 3, pool=pool) for pool in (True, False))
        self.gain = nn.Parameter(torch.ones(width, 1, 1))
        self.register_buffer("scale", torch.full((1,), 2.0))
        self.head = nn.Sequential(OrderedDict(drop=nn.Dropout(), out=nn.Linear(width, classes)))

    def forward(self, x):
        # Decides by values, which no trace could follow.
        x = self.act(self.stem(x)) * self.gain * self.scale
        for stage in chain(self.stages):
            x = stage(x) if x.mean() > -1e9 else x
        return self.head(x.mean((2, 3)))


def with_classes(pick, *, in_channels, classes):
    return Net(pick, in_channels, classes)


def tied(pick, *, in_channels, classes, channels=4):
    block = pick("block", {"conv": lambda: conv(channels), "wide": lambda: conv(channels, 5)})
    stem = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(stem, *[block] * 3, *ends(channels, classes))


class Act(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def with_a_lambda(pick, *, in_channels, classes, channels=4):
    """Cannot be written as its layers, since a lambda has no name."""
    square = pick("act", {"square": lambda: lambda x: x * x, "cube": lambda: lambda x: x * x * x})
    layers = nn.Conv2d(in_channels, channels, 3, padding=1), Act(square)
    return nn.Sequential(*layers, *ends(channels, classes))


def within(pick, *, in_channels, classes, channels=4):
    """Defines its class within, which sees the pick from there."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.op = pick("op", {"conv": lambda: conv(channels), "skip": nn.Identity})

        def forward(self, x):
            return self.op(x)

    stem = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(stem, Inner(), *ends(channels, classes))


class Deciding(nn.Module):
    def __init__(self, stem, head):
        super().__init__()
        self.stem, self.head = stem, head

    def forward(self, x):
        if x.mean() > 0:
            x = 2 * x
        return self.head(self.stem(x))


def deciding(pick, *, in_channels, classes, channels=4):
    stem = nn.Conv2d(in_channels, channels, pick("kernel", {"1": 1, "3": 3}))
    return Deciding(stem, nn.Sequential(*ends(channels, classes)))
