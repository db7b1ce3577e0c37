"""Computes the share of its workers' time that a run has spent on training.

    python benchmarks/worker_time.py results/quickstart

The time available in each phase is the span from the start of the first training to the end of the
last, times the number of workers. Time before the first training (starting Python, reading the
data) and between search and finals is not counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import yaml


def main(run_dir: Path) -> None:
    workers = yaml.safe_load((run_dir / "config.yaml").read_text())["parallel"]["workers"]
    timings = pd.read_csv(run_dir / "timings.csv")
    total_trained = total_there = 0.0
    for phase, rows in timings.groupby("phase", sort=False):
        ends = rows["started"] + rows["seconds"]
        there = workers * (ends.max() - rows["started"].min())
        trained, busy = rows["training_seconds"].sum(), rows["seconds"].sum()
        total_trained, total_there = total_trained + trained, total_there + there
        print(
            f"{phase}: {len(rows)} trainings on {workers} workers: training {trained / there:.1%} "
            f"of {there:.1f} s, evaluating in all {busy / there:.1%}"
        )
    print(f"both: training {total_trained / total_there:.1%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
