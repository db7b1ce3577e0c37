"""The memory that a network needs to classify one image, known without training it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

FOLDED = ("batch_norm", "dropout")  # what a device computes in place, beside pointwise functions


def peak_memory(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the most memory that a network needs at once for one image, in bytes.

    It is that of all weights, batch norms' statistics among them, and of the activations that are
    needed at the same time: what a layer reads and writes, and what a later one still reads. Batch
    norms and functions of single elements write over what they read, unless it is needed later, as
    on devices. The working memory of a layer's algorithm is not counted.

    Args:
        network: in float32, on the CPU.
        image_shape: (channels, height, width).
    """
    tensors = [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]
    modes = {module: module.training for module in network.modules()}
    image = torch.zeros(1, *image_shape)
    trace = _Trace([*network.parameters(), *network.buffers()])
    try:
        with torch.no_grad(), trace:
            trace.keep(image)
            network.eval()(image)
    finally:
        for module, training in modes.items():
            module.training = training
    weights = sum(each.numel() * each.element_size() for each in tensors)
    return weights + trace.peak(_place(image))


@dataclass(frozen=True, slots=True)
class _Step:
    """What one function reads and writes, by the place of the memory.

    Attributes:
        over: whether it can write over what it reads first.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    over: bool


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Notes what each function reads and writes within the block, weights left out.

    All tensors are kept until the end, so that no two have the same place.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.steps: list[_Step] = []
        self.sizes: dict[int, int] = {}
        self._kept: list[Tensor] = []
        self._weights = {0, *map(_place, weights)}  # 0 is the place of an empty tensor

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def keep(self, tensor: Tensor) -> int:
        """Keep an activation, and return its place."""
        place = _place(tensor)
        self.sizes[place] = tensor.untyped_storage().nbytes()
        self._kept.append(tensor)
        return place

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        read, written = (
            [each for each in _tensors(values) if _place(each) not in self._weights]
            for values in ((args, kwargs), output)
        )
        over = torch.Tag.pointwise in func.tags or any(name in func.name() for name in FOLDED)
        self.steps.append(_Step(tuple(map(self.keep, read)), tuple(map(self.keep, written)), over))
        return output

    def peak(self, first: int) -> int:
        """Return the most bytes of activations that are needed at once.

        Args:
            first: the place of what the first function reads.
        """
        last = {
            place: i for i, step in enumerate(self.steps) for place in (*step.reads, *step.writes)
        }
        live, peak = {first}, self.sizes[first]
        for i, step in enumerate(self.steps):
            new = set(step.writes) - live
            freed = {place for place in live if last[place] <= i and place not in step.writes}
            spared = {place for place in freed & set(step.reads) if step.over}
            held = sum(self.sizes[place] for place in live | new)
            saved = max((self.sizes[place] for place in spared), default=0)
            peak = max(peak, held - min(saved, sum(self.sizes[place] for place in new)))
            live = (live | new) - freed
        return peak


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in arguments or results."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
