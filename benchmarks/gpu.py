"""Tells what evonas does on a GPU, in under ten minutes: its tests, the quickstart, and its speed.

Four parts: `tests/gpu`; the quickstart; images per second of three networks, of a plain float32
loop with a DataLoader, of evonas without and with its step recorded as a CUDA graph, in rounds that
take turns, and the medians of these; and the networks per hour that 1, 2, 4 and 8 processes on the
GPU train. The images of the last two are random, 3x32x32. Writes `gpu.json` and `gpu.md`.

Without a GPU, or with `--cpu`, it does what it can on the CPU, smaller, and says what it left out.

    python benchmarks/gpu.py [--out results/gpu] [--cpu] [--seconds 560]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from evonas import config
from evonas.core import Budget, Candidate, Evaluation
from evonas.data.dataset import DataSet, Images
from evonas.evaluators import pool
from evonas.evaluators.pool import Workers
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.experiment import ParallelParams
from evonas.jobs import machine
from evonas.networks.decode import decode
from evonas.protocols import Setting, TrainingSetting
from evonas.records.folder import environment
from evonas.training.batches import resident
from evonas.training.loop import seeded, train
from evonas.training.recipe import Recipe
from genomes.nasbench201 import NASBench201

ROOT = Path(__file__).resolve().parent.parent
SPACE = NASBench201()
GENOME = SPACE.parse("3-3-3-1-3-2")
NO_GPU = "no GPU, or --cpu"
# Seconds kept for a part; what is left of a part is the next one's.
TESTS, QUICKSTART, LEVEL = 220.0, 120.0, 45.0


@dataclass(frozen=True)
class Scale:
    """How much is measured: less on the CPU, where it only shows that this program runs.

    Attributes:
        networks: (channels, cells a stage) of each size of network.
        seconds: of one round of a loop.
        counts: of processes at once.
        batch: images of a step, in all trainings but the quickstart's.
        steps: of a training in one of the processes.
        trainings: of each process.
    """

    device: str
    networks: tuple[tuple[int, int], ...] = ((8, 1), (16, 3), (32, 5))
    seconds: float = 1.5
    rounds: int = 3
    counts: tuple[int, ...] = (1, 2, 4, 8)
    images: int = 20_000
    batch: int = 128
    steps: int = 400
    trainings: int = 6

    @property
    def recipe(self) -> Recipe:
        return Recipe(batch_size=self.batch, pad_crop=4, flip=True)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


GPU = Scale("cuda:0")
CPU = Scale("cpu", ((2, 1), (4, 1), (8, 1)), 0.3, 1, (1, 2), 64, 8, 2, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder to write")
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    parser.add_argument("--seconds", type=float, default=560, help="begin nothing beyond these")
    given = parser.parse_args()
    scale = GPU if torch.cuda.is_available() and not given.cpu else CPU
    ends = time.monotonic() + given.seconds
    torch.set_num_threads(1)  # as in a worker
    found: dict[str, Any] = {
        "machine": machine.environment(deterministic=False),
        "device": torch.cuda.get_device_name(0) if scale.on_gpu else "CPU",
        "cuda": torch.version.cuda if scale.on_gpu else None,
    }
    parts: dict[str, Callable[[Scale, float], dict[str, Any]]] = {
        "tests": gpu_tests,
        "quickstart": quickstart,
        "images_per_second": images_per_second,
        "networks_per_hour": networks_per_hour,
    }
    for name, part in parts.items():
        started = time.monotonic()
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found[name] = part(scale, ends)
        except Exception as error:  # the other parts are worth having
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        found[name]["seconds"] = round(time.monotonic() - started, 1)
        write(given.out, found)
    print((given.out / "gpu.md").read_text())
    sys.exit(any("failed" in found[name] for name in parts))


def gpu_tests(scale: Scale, ends: float) -> dict[str, Any]:
    """Run `tests/gpu`, where each test is skipped without a GPU, and count how they ended."""
    if find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    command = [sys.executable, "-m", "pytest", "-v", "-rs", "--color=no", "-p", "no:cacheprovider"]
    hidden = {} if scale.on_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    limit = min(TESTS, ends - time.monotonic())
    code, output = called([*command, "tests/gpu"], limit, hidden)
    words = ("PASSED", "FAILED", "ERROR", "SKIPPED")
    counts = {word.lower(): len(re.findall(rf"^\S+ {word}", output, re.M)) for word in words}
    found: dict[str, Any] = {"ended": counts}
    if code is None:
        found["failed"] = f"stopped after {limit:.0f} s; what had ended by then is counted"
    elif code:
        found["failed"] = output[-2000:]
    elif not scale.on_gpu:
        found = {"skipped": f"all {counts['skipped']} tests, {NO_GPU}"}
    return found


def quickstart(scale: Scale, ends: float) -> dict[str, Any]:
    """Run the quickstart, on the CPU one generation of it, with as many workers as `auto` gives."""
    left = [] if scale.on_gpu else ["--set", "stop.generations=1", "--set", "finalists.top=0"]
    with tempfile.TemporaryDirectory(prefix="evonas-") as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "evonas", "run", "experiments/quickstart.yaml"]
        command += ["--out", str(out), "--device", scale.device]
        command += ["--set", "parallel.workers=auto", *left]
        started = time.monotonic()
        code, output = called(command, min(QUICKSTART, ends - time.monotonic()))
        seconds = time.monotonic() - started
        if code != 0:
            return {"failed": output[-2000:] if code else "took too long"}
        found: dict[str, Any] = {
            "wall_seconds": round(seconds, 1),
            "workers": config.load_run(out).parallel.workers,
            "images_per_second_by_processes": environment(out).get("images_per_second", {}),
            "status": pd.read_csv(out / "evaluations.csv")["status"].value_counts().to_dict(),
        }
        if (out / "finalists.csv").exists():
            winner = pd.read_csv(out / "finalists.csv").iloc[0]
            found["winner"] = {key: winner[key] for key in winner.index if "error" in key}
        if not scale.on_gpu:
            found["skipped"] = f"all generations but the first, and the finals, {NO_GPU}"
        return json.loads(json.dumps(found, default=float))


def images_per_second(scale: Scale, ends: float) -> dict[str, Any]:
    """Train three networks in three ways, which take turns; give the medians of the rounds."""
    data = random_images(scale.images)
    loader = DataLoader(
        Plain(data.train),
        batch_size=scale.batch,
        shuffle=True,
        drop_last=True,
        num_workers=min(4, len(os.sched_getaffinity(0)) - 1) if scale.on_gpu else 0,
        pin_memory=scale.on_gpu,
        persistent_workers=scale.on_gpu and len(os.sched_getaffinity(0)) > 1,
    )
    sizes = []
    for channels, cells in scale.networks:
        if time.monotonic() > ends - 15:
            sizes.append({"channels": channels, "cells": cells, "skipped": "no time left"})
            continue
        ways: dict[str, Callable[[], float]] = {
            "plain": lambda size=(channels, cells): plain_rate(scale, *size, loader),
            "evonas, step by step": lambda size=(channels, cells): own_rate(scale, *size, data),
        }
        if scale.on_gpu:
            ways["evonas, recorded"] = lambda size=(channels, cells): own_rate(
                scale, *size, data, capture=True
            )
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(scale.rounds):
            for way, rate in ways.items():
                rates[way].append(rate())
        medians = {way: round(statistics.median(each), 1) for way, each in rates.items()}
        sizes.append({"channels": channels, "cells": cells, **medians})
    found: dict[str, Any] = {"batch": scale.batch, "rounds": scale.rounds, "sizes": sizes}
    if not scale.on_gpu:
        found["skipped"] = f"larger networks, more rounds and the recorded step, {NO_GPU}"
    return found


def networks_per_hour(scale: Scale, ends: float) -> dict[str, Any]:
    """Train networks in 1, 2, 4 and 8 processes at once on the GPU, after a round that is not
    timed.
    """
    evaluator = TrainEvaluator(
        TrainParams(recipe=scale.recipe),
        Setting(
            SPACE,
            training=TrainingSetting(
                {"channels": 16, "cells": 1},
                random_images(scale.images),
                machine.hardware(parallel(scale)),
            ),
        ),
    )
    found: dict[str, Any] = {"steps": scale.steps, "batch": scale.batch, "processes": {}}
    for count in scale.counts:
        if time.monotonic() > ends - LEVEL:
            found["processes"][count] = "skipped, no time left"
            continue
        calls = [(evaluator, scale.steps, seed) for seed in range(scale.trainings * count)]
        gpus = machine.visible(machine.gpus(scale.device))
        with (
            tempfile.TemporaryDirectory(prefix="evonas-") as folder,
            closing(Workers(Path(folder) / "traces", count, gpus=gpus, per_device=count)) as many,
        ):
            list(pool.results(many, trained, calls[:count]))
            started = time.monotonic()
            ended = list(pool.results(many, trained, calls))
            seconds = time.monotonic() - started
        if failed := [each.message for each in ended if each.status.failed]:
            raise RuntimeError(f"{len(failed)} of {len(ended)} trainings failed: {failed[0]}")
        found["processes"][count] = round(3600 * len(ended) / seconds)
    if not scale.on_gpu:
        found["skipped"] = f"4 and 8 processes, trainings of more than 2 steps, {NO_GPU}"
    return found


def trained(evaluator: TrainEvaluator, steps: int, seed: int) -> Evaluation:
    return evaluator.evaluate(Candidate(GENOME, budget=Budget(steps=steps)), seed)


def parallel(scale: Scale) -> ParallelParams:
    return machine.resolve(ParallelParams(device=scale.device))


def own_rate(
    scale: Scale, channels: int, cells: int, data: DataSet, *, capture: bool = False
) -> float:
    """Return the images per second of evonas, with the precision that it chooses by itself."""
    hardware = machine.hardware(parallel(scale))
    with seeded(0, hardware.device):
        network = decode(SPACE, GENOME, in_channels=3, classes=10, channels=channels, cells=cells)
        hardware.place(network)
        images = resident(data, torch.device(hardware.device))
        warm = Budget(steps=10 if scale.on_gpu else 1)
        for budget in (warm, Budget(seconds=scale.seconds)):
            done = train(network, images, scale.recipe, budget, 0, hardware, capture=capture)
    return done.steps * scale.batch / done.seconds


def plain_rate(scale: Scale, channels: int, cells: int, loader: Any) -> float:
    """Return the images per second of a loop as most people write it, in float32."""
    device = torch.device(scale.device)
    network = decode(SPACE, GENOME, in_channels=3, classes=10, channels=channels, cells=cells)
    network.to(device).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps, started = -5 if scale.on_gpu else -1, time.perf_counter()  # not all are timed
    while True:
        for images, labels in loader:
            if steps == 0:
                waited_for(device)
                started = time.perf_counter()
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            steps += 1
            if steps > 0 and time.perf_counter() - started > scale.seconds:
                waited_for(device)
                return steps * scale.batch / (time.perf_counter() - started)


class Plain(Dataset[tuple[torch.Tensor, int]]):
    """Images that are cropped and mirrored one by one, on the CPU."""

    def __init__(self, images: Images) -> None:
        self.images, self.labels = torch.from_numpy(images.images), images.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        image = (self.images[row].float() - 127.5) / 73.9
        image = torch.nn.functional.pad(image, (4, 4, 4, 4))
        top, left, mirrored = (int(torch.randint(high, ())) for high in (9, 9, 2))
        image = image[:, top : top + 32, left : left + 32]
        return image.flip(2) if mirrored else image, self.labels[row]


def random_images(count: int) -> DataSet:
    rng = np.random.default_rng(0)

    def part(size: int) -> Images:
        pixels = rng.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)
        return Images(pixels, rng.integers(0, 10, size))

    moments = (127.5,) * 3, (73.9,) * 3
    names = tuple(map(str, range(10)))
    return DataSet(
        part(count), part(count // 10), 10, *moments, True, f"random-{count}", names, (0, 255)
    )


def waited_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def called(
    command: list[str], limit: float, variables: dict[str, str] | None = None
) -> tuple[int | None, str]:
    """Run a command in the repository; return its status, None if it was stopped, and output."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+") as output:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, **(variables or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(1.0, limit),
                check=False,
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        return code, output.read()


def write(out: Path, found: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    there = found["machine"]
    mps = "" if found["device"] == "CPU" else f", MPS {'on' if there.get('mps') else 'off'}"
    lines = [
        f"# evonas on {found['device']}",
        "",
        f"{there['time']}, torch {there['packages']['torch']}, CUDA {found['cuda'] or 'none'}, "
        f"{there['cores']} CPU cores{mps}, commit {there['commit']}",
    ]
    if found["device"] == "CPU":
        lines += ["", "No GPU was used, so the figures show only that this program runs."]
    for name in ("tests", "quickstart", "images_per_second", "networks_per_hour"):
        lines += ["", f"## {name.replace('_', ' ').capitalize()}", ""]
        lines += told(name, found.get(name, {"skipped": "not reached yet"}))
    (out / "gpu.md").write_text("\n".join(lines) + "\n")


def told(name: str, part: dict[str, Any]) -> list[str]:
    """Return the lines of a part."""
    lines = []
    if name == "images_per_second" and "sizes" in part:
        ways = [key for key in part["sizes"][0] if key not in ("channels", "cells", "skipped")]
        heads = ["channels", "cells", *ways]
        rows = [[str(size.get(head, "skipped")) for head in heads] for size in part["sizes"]]
        lines += table(heads, rows)
    elif name == "networks_per_hour" and "processes" in part:
        rows = [[str(count), str(rate)] for count, rate in part["processes"].items()]
        lines += table(["processes on the device", "networks per hour"], rows)
    else:
        plain = {key: part[key] for key in part if key not in ("failed", "skipped", "seconds")}
        lines += [f"- {key}: {value}" for key, value in plain.items()]
    for key in ("skipped", "failed"):
        if key in part:
            lines += ["", f"**{key.capitalize()}**: {part[key]}"]
    return lines


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["--:"] * len(heads), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    main()
