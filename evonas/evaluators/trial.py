"""One pass through a network, to find out before a search what is wrong with a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evonas.core import Candidate, Evaluation, Metric, Status
from evonas.loop import error_text
from evonas.networks.decode import decode
from evonas.training.loop import out_of_memory, seeded
from genomes import Genome, SearchSpace

IMAGES = 2  # one has no variance, which batch norm needs


class Trial:
    """Sends random images through the network of a genome, forward and backward, on the CPU.

    It measures nothing. The message of an answer says what is wrong with the network; one that does
    not end like a function, such as by `sys.exit` or for want of memory, is a fault as in a search.

    Args:
        arguments: the arguments of the network's builder, `in_channels` and `classes` among them.
        image_shape: (channels, height, width).
    """

    metrics: tuple[Metric, ...] = ()
    fingerprint = ""

    def __init__(
        self, space: SearchSpace, arguments: Mapping[str, Any], image_shape: tuple[int, int, int]
    ) -> None:
        self.space = space
        self.arguments = arguments
        self.image_shape = image_shape

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        try:
            with seeded(0, "cpu"):
                mistake = self._mistake(candidate.genome)
        except BaseException as error:  # a user's network may raise anything
            message = error_text(error)
            if not isinstance(error, Exception) or out_of_memory(error):
                return Evaluation(candidate, {}, Status.CRASHED, message=message)
            mistake = f"raised {message}"
        return Evaluation(candidate, {}, message=mistake)

    def _mistake(self, genome: Genome) -> str:
        network = decode(self.space, genome, **self.arguments)
        images = torch.randn(IMAGES, *self.image_shape)
        outputs = network.train()(images)
        # While it is trained, a network may return the logits of an auxiliary classifier too.
        outputs = outputs if isinstance(outputs, tuple) and len(outputs) == 2 else (outputs,)
        for output in (*outputs, network.eval()(images)):
            if mistake := self._mistake_in(output):
                return mistake
        if not any(parameter.requires_grad for parameter in network.parameters()):
            return "has no trainable parameters"
        if not all(output.requires_grad for output in outputs):
            return "returned logits that no trainable parameter has a part in"
        sum(output.sum() for output in outputs).backward()
        return ""

    def _mistake_in(self, output: object) -> str:
        if not isinstance(output, Tensor):
            return f"returned a value of type {type(output).__name__}"
        if output.shape != (IMAGES, self.arguments["classes"]):
            return f"returned a tensor of the shape {tuple(output.shape)}"
        if not output.is_floating_point():
            return f"returned numbers of the type {output.dtype}"
        return ""
