"""Makes the folders beside it: `python make.py CHECKOUT`, a checkout of evonas 0.1.0.

Each comes from a command of that version, which is killed where a run is to be unfinished.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STRIPPED = ("lock", "log.txt", "figures", "compare", "*.png", "*.svg")

COMMON = """
seed: 1
data: {name: digits, subset: 60}
objectives: [{name: val_error}, {name: params}]
parallel: {workers: 1}
"""
TRAINED = f"""{COMMON}
space: {{name: nasbench201, channels: 2, cells: 1}}
evaluator: {{name: train, recipe: {{batch_size: 16}}}}
budget: {{steps: 2}}
finalists: {{top: 1, seeds: 1}}
"""
SEARCH = f"""{TRAINED}
name: search
strategy: {{name: pso, particles: 3}}
stop: {{generations: 3}}
"""
CACHED = f"""{TRAINED}
name: cached
strategy: {{name: genetic, population: 3, elites: 1}}
stop: {{generations: 2}}
cache: cache.sqlite
"""
SUPERNET = f"""{COMMON}
name: supernet
space: {{name: chain, stages: [[2, 2, 1]], kernels: [3], expansions: [1, 2], stem: 2}}
strategy: {{name: random, population: 3}}
evaluator: {{name: supernet, epochs: 2, pool: 1, recalibrate: 1, recipe: {{batch_size: 16}}}}
stop: {{generations: 1}}
finalists: {{top: 1, seeds: 1, budget: {{steps: 2}}}}
"""
BENCH = """
name: bench
space: {name: table, genes: {a: [x, y], b: [x, y, z]}}
table: {path: table.csv, metrics: {loss: loss, size: size}}
objectives: [{name: loss}]
tell: [size]
protocol: {queries: 4}
seeds: 2
strategies: {pso: {name: pso, particles: 3}}
"""
TABLE = """genome,loss,size
00,0.5,1
01,0.4,2
02,0.3,3
10,0.2,4
11,0.6,5
12,0.1,6
"""

# A full training that ends once the checkpoint of its first epoch is written.
TRAINING_KILLED = """
import os, signal
from evonas import cli, full_training
cli._draw = lambda run_dir, only=(): None
save = full_training.FullTraining._save
def saved(training):
    save(training)
    os.kill(os.getpid(), signal.SIGKILL)
full_training.FullTraining._save = saved
cli.app()
"""


def main(checkout: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for name, text in (
            ("search", SEARCH),
            ("cached", CACHED),
            ("supernet", SUPERNET),
            ("bench", BENCH),
        ):
            (out / f"{name}.yaml").write_text(text)
        (out / "table.csv").write_text(TABLE)

        def evonas(*arguments: str, killed_at: str = "none") -> None:
            """Runs a command, which is killed at a moment of `tests/killed.py`, if one is given."""
            call("-m", "tests.killed", killed_at, *arguments, killed=killed_at != "none")

        def call(*arguments: str, killed: bool) -> None:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=out,
                env={
                    **os.environ,
                    "PYTHONPATH": str(checkout),
                    "OMP_NUM_THREADS": "1",
                    "SUBMISSIONS": str(out / "submissions"),
                },
                check=False,
            )
            assert done.returncode == (-signal.SIGKILL if killed else 0), arguments

        evonas("run", "search.yaml", "--out", "search", killed_at="after_checkpoint:1")
        evonas("run", "cached.yaml", "--out", "cached")
        evonas("run", "supernet.yaml", "--out", "supernet", killed_at="before_epoch:2")
        evonas("bench", "bench.yaml", "--out", "bench")
        full = ["cached", "--out", "training", "--set", "epochs=3", "--set", "parallel.threads=1"]
        call("-c", TRAINING_KILLED, "train", *full, killed=True)

        for name in ("search", "cached", "supernet", "bench", "training"):
            shutil.rmtree(HERE / name, ignore_errors=True)
            ignored = shutil.ignore_patterns(*STRIPPED)
            shutil.copytree(out / name, HERE / name, ignore=ignored)
            for file in (HERE / name).rglob("*.yaml"):  # of absolute paths, as seen from the folder
                file.write_text(file.read_text().replace(f"{out}/", "../"))
        for name in ("cache.sqlite", "table.csv", "bench.yaml"):
            shutil.copyfile(out / name, HERE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
