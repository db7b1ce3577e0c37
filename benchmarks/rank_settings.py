"""What raises Kendall's tau between a supernet's scores and trainings alone, by what was tried.

Takes the networks that `evonas rank` has trained alone, trains supernets of other settings, and
scores the same networks with each. Sampling that trains several paths a step has so many fewer
epochs. One supernet each, but for the run's own settings; goes on if it was killed.

    evonas run experiments/fashion_mnist_spos.yaml
    evonas rank results/fashion_mnist_spos-seed0 --sample 100 --epochs 4
    python benchmarks/rank_settings.py results/fashion_mnist_spos-seed0 [--out DIR]
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from evonas import config, experiment
from evonas.core import Candidate, derive_seed
from evonas.report.rank import agreement


def tries(epochs: int) -> Iterator[tuple[str, bool, list[str]]]:
    """A name, whether the run's own supernet serves, and overrides."""
    yield "the run's", True, []
    yield "statistics of batch norms not measured anew", True, ["evaluator.recalibrate=0"]
    yield "measured anew on 100 batches, not 20", True, ["evaluator.recalibrate=100"]
    yield "seed 1", False, ["seed=1"]
    yield "seed 2", False, ["seed=2"]
    yield "a quarter as long", False, [f"evaluator.epochs={epochs // 4}"]
    yield "three times as long", False, [f"evaluator.epochs={3 * epochs}"]
    yield "lr 0.0125", False, ["evaluator.recipe.lr=0.0125"]
    yield "lr 0.2", False, ["evaluator.recipe.lr=0.2"]
    yield "gradients clipped at 5", False, ["evaluator.recipe.clip=5.0"]
    fewer = f"evaluator.epochs={epochs // 5}"
    yield "fair", False, ["evaluator.sampling=fair", fewer]
    yield "dropout", False, ["evaluator.sampling=dropout", fewer]
    yield "learned", False, ["evaluator.sampling=learned"]


def scored(
    run_dir: Path, overrides: list[str], folder: Path, genes: list[str]
) -> tuple[pd.DataFrame, float]:
    """Error and loss of each network with the supernet in a folder, and the seconds to train it."""
    settings = config.load(run_dir / "config.yaml", [*overrides, "evaluator.pool=0"])
    parts = experiment.build(settings)
    started = time.perf_counter()
    parts.evaluator.prepare(folder)
    seconds = round(time.perf_counter() - started, 1)
    evaluator = pickle.loads(pickle.dumps(parts.evaluator))  # as a worker has it
    values = []
    for text in genes:
        found = evaluator.evaluate(Candidate(parts.space.parse(text)), 1)
        values.append((found.values.get("val_error"), found.values.get("val_loss")))
    return pd.DataFrame(values, columns=["error", "loss"], dtype=float), seconds


def told(scores: pd.DataFrame, alone: pd.Series, seed: int) -> dict[str, object]:
    """Tau by either score; networks whose score is not finite come last, all alike."""
    row: dict[str, object] = {}
    for name in ("error", "loss"):
        filled = scores[name].fillna(np.inf).rank(method="min").to_numpy()
        tau = agreement(filled, alone.to_numpy(), seed)[0]
        row |= {f"tau_{name}": tau.value, f"low_{name}": tau.low, f"high_{name}": tau.high}
    best = alone.iloc[int(scores["error"].argmin())]
    return {**row, "best_place": 1 + int((alone < best).sum()), "n": len(alone)}


def lines(rows: pd.DataFrame) -> Iterator[str]:
    yield "| supernet | trained, s | tau by error | tau by loss | place of the best by error |"
    yield "| --- | --: | --: | --: | --: |"
    for row in rows.itertuples():
        taus = [
            f"{getattr(row, f'tau_{by}'):.3f} "
            f"({getattr(row, f'low_{by}'):.3f} to {getattr(row, f'high_{by}'):.3f})"
            for by in ("error", "loss")
        ]
        seconds = "" if pd.isna(row.seconds) else f"{row.seconds:,.0f}"
        yield f"| {row.supernet} | {seconds} | {' | '.join(taus)} | {row.best_place} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/rank_settings"))
    given = parser.parse_args()
    networks = pd.read_csv(given.run_dir / "rank" / "networks.csv", dtype={"genes": str})
    networks = networks[networks["status"] == "ok"]
    settings = config.load(given.run_dir / "config.yaml")
    epochs = int(getattr(settings.evaluator, "epochs"))  # noqa: B009  # of a component's params
    path = given.out / "settings.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["supernet"])
    for name, own, overrides in tries(epochs):
        if (rows["supernet"] == name).any():
            continue
        folder = given.out / "".join(c if c.isalnum() else "_" for c in name)
        if own:
            shutil.copytree(given.run_dir / "supernet", folder / "supernet", dirs_exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        scores, seconds = scored(given.run_dir, overrides, folder, networks["genes"].tolist())
        seconds = float("nan") if own else seconds
        seed = derive_seed(settings.seed, "rank", "resamples")
        row = {"supernet": name, "seconds": seconds, **told(scores, networks["alone_error"], seed)}
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        rows.to_csv(path, index=False)
        print(row, flush=True)
    text = "\n".join(lines(rows)) + "\n"
    (given.out / "settings.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
