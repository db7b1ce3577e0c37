"""Compares the time of scoring networks with a run's supernet with that of training each alone.

Draws networks that meet the run's constraints, scores each, and trains each as long as finalists
are, in this process and on one thread. The supernet's own training is not counted.

    evonas run experiments/digits_spos_chain.yaml
    python benchmarks/scoring_cost.py results/digits_spos_chain-seed0 [--sample 30]
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from evonas import config
from evonas.core import Candidate, violation
from evonas.jobs.parts import build


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--sample", type=int, default=30)
    given = parser.parse_args()
    settings = config.load_run(given.run_dir)
    budget = settings.finalists.budget
    parts = build(settings)
    list(parts.evaluator.prepare(given.run_dir))
    rng = np.random.default_rng(0)
    scoring, training = [], []
    with tempfile.TemporaryDirectory() as scratch:
        pickled = pickle.dumps(parts.evaluator)
        while len(scoring) < given.sample:
            genome = parts.setting.space.canonical(parts.setting.space.sample(rng))
            if violation(parts.evaluator.cheap(genome), settings.constraints):
                continue
            for seconds, length in ((scoring, None), (training, budget)):
                evaluator = pickle.loads(pickled)  # which has counted nothing, as in a worker
                evaluator.alone.scratch = Path(scratch)
                started = time.perf_counter()
                found = evaluator.evaluate(Candidate(genome, budget=length), 1)
                seconds.append(time.perf_counter() - started)
                if found.status.failed:
                    raise SystemExit(f"{genome.text}: {found.message}")
    each = statistics.fmean(scoring), statistics.fmean(training)
    text = "" if budget is None else budget.text
    print(f"{given.sample} networks, one thread: scoring takes {1000 * each[0]:.1f} ms each, and")
    print(f"training alone for {text} {1000 * each[1]:.1f} ms, a ratio of {each[0] / each[1]:.3f};")
    print(f"1,000 networks: {1000 * each[0]:.0f} s to score, {1000 * each[1]:.0f} s to train")


if __name__ == "__main__":
    main()
