"""Compares the speed of evonas's training loop with a plain PyTorch loop and with the processor's
limit, on the CPU.

    python benchmarks/throughput.py [--data '{name: digits}'] [--rounds 7] [--threads 1] [--out DIR]
    python benchmarks/throughput.py --errors [--data ...] [--epochs 5]
    python benchmarks/throughput.py --profile [--data ...]

Each loop trains the same network, with the same initial weights, in a process of its own. They
take turns, a few steps each, and the table has the medians over the rounds. A network is one drawn
from its space, or has the genome that the table names. The plain loop is what one would write:
float32, a shuffling DataLoader over normalised images, SGD; it augments nothing, nor does evonas
here. `default` marks the precision and layout that evonas takes by itself. The limit is the rate of
a product of two large matrices in that precision, divided by the FLOPs of a training image: forward
and twice as many backward.

With `--errors`, five networks are trained with five seeds in each precision and layout; the table
has the differences of their validation errors from float32 with the channels first, in pairs.

With `--profile`, the table has the share of each kind of operation in the time of evonas's steps.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy.stats import t as students_t
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from evonas import config, markdown, registry
from evonas.core import Budget
from evonas.data.dataset import DataSet, split
from evonas.experiment import ParallelParams
from evonas.jobs import machine
from evonas.networks.decode import decode
from evonas.networks.profile import profile
from evonas.plots.style import CATEGORIES, Drawing, panels, save, styled
from evonas.provenance import processor
from evonas.training.allocation import keep_freed_memory
from evonas.training.batches import resident
from evonas.training.loop import Hardware, Trainer, measure, seeded, train
from evonas.training.recipe import Recipe

WIDE = {"name": "nasbench201", "channels": 16, "cells": 1}
NARROW = {"name": "nasbench201", "channels": 8, "cells": 1}
CONVOLUTIONS = "3-3-3-1-3-2"  # five convolutions of six ops
CASES: tuple[tuple[dict[str, Any], str | None, int], ...] = (
    (WIDE, None, 128),
    (NARROW, None, 64),
    (WIDE, CONVOLUTIONS, 128),
    (NARROW, CONVOLUTIONS, 64),
    ({"name": "chain"}, None, 128),
    ({"name": "chain"}, None, 64),
    ({"name": "darts", "channels": 8, "cells": 3}, None, 128),
    ({"name": "darts", "channels": 8, "cells": 3}, None, 64),
)
HARDWARE = {
    "float32, channels first": Hardware(),
    "float32, channels last": Hardware(channels_last=True),
    "bfloat16, channels last": Hardware(precision="bfloat16", channels_last=True),
}
PLAIN = "plain loop"
SECONDS = 1.0  # of a turn
PROFILED = 10  # steps
KINDS = {  # of operations, by parts of the profiler's names for them
    "convolutions, forward": ("mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::addmm"),
    "convolutions, backward": ("convolution_backward",),
    "batch norm": ("native_batch_norm",),
    "ReLU": ("clamp_min", "threshold_backward", "hardtanh"),
    "sums": ("aten::add", "aten::sum", "aten::cat"),
    "pooling": ("pool2d",),
    "optimizer": ("Optimizer.", "aten::_foreach", "aten::_fused"),
    "images": ("aten::index", "aten::div", "aten::sub", "aten::copy_", "aten::where", "aten::flip"),
}
STEPS = 1000  # of a schedule; the rate does not depend on it


@dataclass(frozen=True)
class Case:
    """A network to train, and how.

    Attributes:
        genome: the network's genome; by default, each seed draws one.
    """

    space: dict[str, Any]
    genome: str | None
    batch_size: int
    data: DataSet
    threads: int

    @property
    def title(self) -> str:
        """What the network is, in words."""
        channels = self.space.get("channels")
        name = self.space["name"] + (f", {channels} channels" if channels else "")
        return name + (f", {self.genome}" if self.genome else "")

    def network(self, seed: int = 0) -> nn.Module:
        """The network, or the one that this seed draws from the space, with fresh weights."""
        params = config.component("space", "spaces", dict(self.space))
        space = registry.make_space(params)
        drawn = space.sample(np.random.default_rng(1 + seed))
        genome = space.canonical(space.parse(self.genome) if self.genome else drawn)
        torch.manual_seed(seed)
        settings = params.model_dump(exclude={"name"})
        channels, classes = self.data.image_shape[0], self.data.classes
        return decode(space, genome, in_channels=channels, classes=classes, **settings)


def plain_loop(case: Case) -> Iterator[int]:
    """Trains as one would by hand; yields the images of each step."""
    part, shape = case.data.train, (1, -1, 1, 1)
    mean, std = (torch.tensor(x).view(shape) for x in (case.data.mean, case.data.std))
    images = (torch.tensor(part.images).float() - mean) / std
    loader = DataLoader(
        TensorDataset(images, torch.tensor(part.labels)),
        case.batch_size,
        shuffle=True,
        drop_last=True,
    )
    network = case.network()
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    while True:
        for batch, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), labels).backward()
            optimizer.step()
            yield len(labels)


def evonas_loop(case: Case, hardware: Hardware) -> Iterator[int]:
    """Trains as evonas does; yields the images of each step."""
    keep_freed_memory()
    recipe = Recipe(lr=0.01, batch_size=case.batch_size, flip=False)
    data = resident(case.data, torch.device("cpu"))
    trainer = Trainer(hardware.place(case.network()), data, recipe, 0, hardware)
    while True:
        for rows in trainer.epoch():
            trainer.step(rows, trainer.steps % STEPS / STEPS)
            yield len(rows)


def take_turns(connection: Connection, case: Case, hardware: Hardware | None) -> None:
    """In a process: train for a while whenever asked, and answer with images a second."""
    torch.set_num_threads(case.threads)
    steps = plain_loop(case) if hardware is None else evonas_loop(case, hardware)
    next(steps)
    while connection.recv():
        images, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < SECONDS:
            images += next(steps)
        connection.send(images / seconds)


def rates(case: Case, rounds: int) -> dict[str, float]:
    """Median images a second of each loop."""
    context = multiprocessing.get_context("spawn")
    loops: dict[str, Hardware | None] = {PLAIN: None, **HARDWARE}
    lines: dict[str, Connection] = {}
    processes = []
    for name, hardware in loops.items():
        lines[name], theirs = context.Pipe()
        process = context.Process(target=take_turns, args=(theirs, case, hardware), daemon=True)
        process.start()
        processes.append(process)
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _, (name, line) in itertools.product(range(rounds + 1), lines.items()):
        line.send(True)
        found[name].append(line.recv())
    for line, process in zip(lines.values(), processes, strict=True):
        line.send(False)
        process.join()
    return {name: statistics.median(each[1:]) for name, each in found.items()}  # the first warms up


def product_rate(precision: str, threads: int) -> float:
    """FLOPs a second of a product of two matrices, a multiply-add counted once."""
    torch.set_num_threads(threads)
    matrix = torch.randn(2048, 2048, dtype=getattr(torch, precision))
    return 2048**3 / _best_seconds(lambda: matrix @ matrix)


def _best_seconds(work: Callable[[], object]) -> float:
    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return min(once() for _ in range(5))


def speeds(data: DataSet, rounds: int, threads: int) -> pd.DataFrame:
    """A row for each case and loop."""
    resolved = machine.hardware(machine.resolve(ParallelParams()))
    products = {name: product_rate(name, threads) for name in ("float32", "bfloat16")}
    rows = []
    for space, genome, batch_size in CASES:
        case = Case(space, genome, batch_size, data, threads)
        work = 3 * profile(case.network(), data.image_shape).flops
        for name, rate in (found := rates(case, rounds)).items():
            hardware = HARDWARE.get(name, Hardware())
            limit = products[hardware.precision] / work
            rows.append(
                {
                    "network": case.title,
                    "batch_size": batch_size,
                    "loop": name,
                    "default": name in HARDWARE and hardware == resolved,
                    "images_per_second": round(rate, 1),
                    "of_plain_loop": round(rate / found[PLAIN], 3),
                    "of_limit": round(rate / limit, 3),
                }
            )
            print(*rows[-1].values(), sep="  ", flush=True)
    return pd.DataFrame(rows)


def kind_of(operation: str) -> str:
    """The kind of an operation that the profiler names."""
    return next((kind for kind, words in KINDS.items() if any(w in operation for w in words)), "")


def profiles(data: DataSet) -> pd.DataFrame:
    """A row for each case: the milliseconds of a step, and the share of each kind of operation."""
    torch.set_num_threads(1)
    resolved = machine.hardware(machine.resolve(ParallelParams()))
    rows = []
    for space, genome, batch_size in CASES:
        case = Case(space, genome, batch_size, data, 1)
        steps = evonas_loop(case, resolved)
        for _ in range(3):
            next(steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            started = time.perf_counter()
            for _ in range(PROFILED):
                next(steps)
            seconds = time.perf_counter() - started
        spent = dict.fromkeys(KINDS, 0.0)
        for event in found.key_averages():
            if kind := kind_of(event.key):
                spent[kind] += event.self_cpu_time_total / 1e6
        rest = seconds - sum(spent.values())
        row = {"network": case.title, "batch_size": batch_size}
        row["ms_per_step"] = round(1000 * seconds / PROFILED, 1)
        shares = {**spent, "everything else": rest}
        rows.append(row | {kind: f"{value / seconds:.0%}" for kind, value in shares.items()})
    return pd.DataFrame(rows)


def errors(data: DataSet, epochs: int) -> pd.DataFrame:
    """A row for each precision and layout: the mean difference from float32, channels first."""
    torch.set_num_threads(1)
    on_cpu = resident(data, torch.device("cpu"))
    recipe, found = Recipe(flip=False), {name: [] for name in HARDWARE}
    case = Case(NARROW, None, 64, data, 1)
    for (name, hardware), network, seed in itertools.product(HARDWARE.items(), range(5), range(5)):
        with seeded(seed, "cpu"):
            trained = hardware.place(case.network(network))
            train(trained, on_cpu, recipe, Budget(epochs=epochs), seed, hardware)
        found[name].append(measure(trained, on_cpu.val, on_cpu, hardware, 256)["error"])
    first = np.array(found["float32, channels first"])
    rows = []
    for name, values in found.items():
        differences = np.array(values) - first
        half = students_t.ppf(0.975, len(first) - 1) * differences.std(ddof=1) / len(first) ** 0.5
        rows.append(
            {
                "training": name,
                "val_error": round(float(np.mean(values)), 4),
                "difference": round(float(differences.mean()), 4),
                "low": round(float(differences.mean() - half), 4),
                "high": round(float(differences.mean() + half), 4),
            }
        )
    return pd.DataFrame(rows)


def figure(frame: pd.DataFrame, title: str) -> Drawing:
    """Bars of images a second, as multiples of the plain loop's."""
    networks = frame["network"].map(lambda name: textwrap.fill(name, 25))
    wide = frame.assign(case=networks + "\nbatches of " + frame["batch_size"].astype(str))
    pivoted = wide.pivot_table("of_plain_loop", "case", "loop", sort=False)
    drawn, (axes,) = panels(1, 4.8)
    pivoted.plot.barh(ax=axes, width=0.8, color=CATEGORIES)
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=0.6)
    axes.set_xlabel("speed, plain loop = 1")
    axes.set_ylabel("")
    drawn.suptitle(textwrap.fill(title, 50))
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    axes.get_legend().remove()
    return Drawing(drawn, frame)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="{name: digits}", help="the data of an experiment, YAML")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--errors", action="store_true", help="compare errors, not speed")
    parser.add_argument("--profile", action="store_true", help="show where the time of a step goes")
    parser.add_argument("--epochs", type=int, default=5, help="of a training, with --errors")
    parser.add_argument("--out", type=Path, default=Path("results/throughput"))
    options = parser.parse_args()
    params: Any = config.component("data", "data", yaml.safe_load(options.data))
    source = registry.load("data", registry.name_of(params))(params.anchored(Path.cwd()))
    data = split(source, params)[0]
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "errors" if options.errors else "profile" if options.profile else "speed"
    name = f"{kind}_{registry.name_of(params)}"
    about = f"{registry.name_of(params)}, {processor()}, torch {torch.__version__}, "
    if options.errors:
        frame = errors(data, options.epochs)
        about += f"{options.epochs} epochs, 5 networks with 5 seeds; interval of 95 %, in pairs"
    elif options.profile:
        frame = profiles(data)
        about += f"1 thread, {PROFILED} steps"
    else:
        frame = speeds(data, options.rounds, options.threads)
        about += f"{markdown.counted(options.threads, 'thread')}, n = {options.rounds} rounds"
    frame.to_csv(options.out / f"{name}.csv", index=False)
    text = markdown.table(list(frame), [list(map(str, row)) for row in frame.to_numpy()])
    (options.out / f"{name}.md").write_text(f"{about}\n\n{text}\n")
    print(f"{about}\n\n{text}")
    if kind == "speed":
        with styled():
            save(figure(frame, about), options.out, name)


if __name__ == "__main__":
    main()
