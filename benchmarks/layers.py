"""Times single layers, forward and backward, in float32 and in bfloat16 on the CPU.

    python benchmarks/layers.py

The table shows which layers a CPU computes faster in float32, and so why a training in bfloat16
lets some of them do so (`evonas/training/precision.py`). `spared` is a layer in a training in
bfloat16 as evonas runs it: its input and output are bfloat16. All have 64 images of 32x32, the
channels last, one thread, and the least of 8 times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from evonas import markdown
from evonas.provenance import processor
from evonas.training.loop import Hardware
from evonas.training.precision import spare_slow_layers

CHANNELS, SIDE, IMAGES, TIMES = 32, 32, 64, 8
FLOAT32 = Hardware(channels_last=True)
BFLOAT16 = Hardware(precision="bfloat16", channels_last=True)


def depthwise(kernel: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(
        CHANNELS, CHANNELS, kernel, stride, padding, dilation, groups=CHANNELS, bias=False
    )


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution 1x1": lambda: nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False),
    "convolution 3x3": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
    "convolution 3x3, 4 groups": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=4),
    "depthwise 3x3": lambda: depthwise(3),
    "depthwise 3x3, stride 2": lambda: depthwise(3, stride=2),
    "depthwise 3x3, dilation 2": lambda: depthwise(3, dilation=2),
    "depthwise 5x5": lambda: depthwise(5),
    "average pooling 3x3, stride 1": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average pooling 2x2": lambda: nn.AvgPool2d(2),
    "max pooling 3x3, stride 1": lambda: nn.MaxPool2d(3, 1, 1),
    "batch norm": lambda: nn.BatchNorm2d(CHANNELS),
    "group norm": lambda: nn.GroupNorm(4, CHANNELS),
    "ReLU": nn.ReLU,
}


def milliseconds(layer: nn.Module, hardware: Hardware) -> float:
    """The least time of a forward and backward pass."""
    layer.to(memory_format=torch.channels_last)
    dtype = getattr(torch, hardware.precision)
    images = torch.randn(IMAGES, CHANNELS, SIDE, SIDE, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()

    def once() -> float:
        started = time.perf_counter()
        with hardware.autocast():
            found: Tensor = layer(images)
        found.backward(torch.ones_like(found))
        return 1000 * (time.perf_counter() - started)

    return min(once() for _ in range(TIMES))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, make in LAYERS.items():
        spared = make()
        spare_slow_layers(spared)
        kinds = ((make(), FLOAT32), (make(), BFLOAT16), (spared, BFLOAT16))
        rows.append([name, *(f"{milliseconds(layer, kind):.1f}" for layer, kind in kinds)])
    print(f"{processor()}, torch {torch.__version__}, milliseconds\n")
    print(markdown.table(["layer", "float32", "bfloat16", "spared"], rows))


if __name__ == "__main__":
    main()
