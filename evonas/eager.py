"""torch's optimizers and its count of FLOPs without its compiler.

torch marks some functions as not to be compiled, and imports the whole compiler when the first of
them is called: 1.5 s of a processor in each process, though nothing is ever compiled. The classes
here have the same functions without the mark.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class SGD(torch.optim.SGD):
    """torch's SGD, unmarked."""


class Adam(torch.optim.Adam):
    """torch's Adam, unmarked."""


class AdamW(torch.optim.AdamW):
    """torch's AdamW, unmarked."""


def _unmark(optimizer: type[torch.optim.Optimizer]) -> None:
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        setattr(optimizer, name, inspect.unwrap(getattr(optimizer, name)))
    # The mark of `step` also turned gradients off.
    setattr(optimizer, "step", torch.no_grad()(inspect.unwrap(optimizer.step)))  # noqa: B010  # mypy takes no method of a class


for _optimizer in (SGD, Adam, AdamW):
    _unmark(_optimizer)


class Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts two operations for each multiply-add within the block, biases left out.

    It does what `torch.utils.flop_counter.FlopCounterMode` does, by the same formulas.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if formula is None:
            with self:  # what it consists of may have formulas
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=output)
        return output
