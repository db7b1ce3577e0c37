"""The moving average of the weights of a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of a network's weights, whose horizon grows with the training.

    Step t moves it by 1 / (1 + share (t - 1)) of the way to the weights after that step. So its
    horizon is that share of the steps so far: it is the weights themselves after the first step,
    forgets them as the training gets on, and fits a training of any length, also one that stops in
    mid-schedule. (This is the polynomial-decay averaging of Shamir and Zhang, 2013, with eta =
    1 / share - 1.) Weights and the statistics of batch norms are averaged alike; counters are not.

    Args:
        network: already where it is trained.
        share: from 0, exclusive, to 1, with which it is the mean over all steps.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.share = share
        self._parts = _Parts(network)
        self.tensors = [tensor.detach().clone() for tensor in self._parts.tensors]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: the number of the step, from 1.
        """
        weight = 1 / (1 + self.share * (step - 1))
        torch._foreach_lerp_(self.tensors, self._parts.tensors, weight)

    def put(self, network: nn.Module) -> None:
        """Give the network, or a copy of it, the averaged weights, in tensors of their own.

        What else has the network's tensors, such as its state, keeps them as they are.
        """
        for part, averaged in zip(_Parts(network).tensors, self.tensors, strict=True):
            part.data = averaged.clone()

    def state(self) -> list[Tensor]:
        """Return the averaged tensors themselves."""
        return self.tensors

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        for averaged, loaded in zip(self.tensors, state, strict=True):
            averaged.copy_(loaded)


class _Parts:
    """What of a network is averaged: its parameters, and its buffers of floating-point numbers."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = list(network.parameters())
        # By name, since a network may replace a buffer by another tensor.
        self._buffers = [
            (module, name)
            for module in network.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.is_floating_point()
        ]

    @property
    def tensors(self) -> list[Tensor]:
        return [*self._parameters, *(getattr(module, name) for module, name in self._buffers)]
