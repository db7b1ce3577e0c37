"""Tries settings that may raise Kendall's tau between a supernet's scores and trainings alone.

Takes the networks that `evonas rank` has trained alone, trains supernets with other settings, and
scores the same networks with each. `fair` sampling, which trains all five ops at each step, gets a
fifth of the epochs. One supernet each; call it again to continue after a kill.

    evonas run experiments/fashion_mnist_spos.yaml
    evonas rank results/fashion_mnist_spos-seed0 --sample 100 --epochs 4
    python benchmarks/rank_settings.py results/fashion_mnist_spos-seed0 [--out DIR]
"""

from __future__ import annotations

import argparse
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from evonas import config
from evonas.core import Candidate, derive_seed
from evonas.jobs.parts import build
from evonas.jobs.rank import agreement

FEW = 40  # epochs, where many settings are tried


def tries() -> Iterator[tuple[str, bool, list[str]]]:
    """Yields a name, whether the run's own supernet is used, and overrides."""
    yield "the run's", True, []
    yield "the run's, batch norms as the supernet has them", True, ["evaluator.recalibrate=0"]
    yield "the run's, batch norms measured on 100 batches", True, ["evaluator.recalibrate=100"]
    for epochs in (10, FEW, 3 * FEW):
        yield f"{epochs} epochs", False, [f"evaluator.epochs={epochs}"]
    few = f"evaluator.epochs={FEW}"
    for seed in (1, 2):
        yield f"{FEW} epochs, seed {seed}", False, [few, f"seed={seed}"]
    for lr in (0.0125, 0.2):
        yield f"{FEW} epochs, lr {lr}", False, [few, f"evaluator.recipe.lr={lr}"]
    yield f"{FEW} epochs, gradients clipped at 5", False, [few, "evaluator.recipe.clip=5.0"]
    fair = [f"evaluator.epochs={FEW // 5}", "evaluator.sampling=fair"]
    yield f"{FEW // 5} epochs, fair", False, fair


def scored(run_dir: Path, overrides: list[str], folder: Path, genes: list[str]) -> pd.DataFrame:
    """The error and loss of each network with the supernet in a folder, which is trained first."""
    settings = config.load_run(run_dir, [*overrides, "evaluator.pool=0"])
    parts = build(settings)
    list(parts.evaluator.prepare(folder))
    evaluator = pickle.loads(pickle.dumps(parts.evaluator))  # as a worker has it
    values = []
    for text in genes:
        found = evaluator.evaluate(Candidate(parts.setting.space.parse(text)), 1)
        values.append((found.values.get("val_error"), found.values.get("val_loss")))
    return pd.DataFrame(values, columns=["error", "loss"], dtype=float)


def told(scores: pd.DataFrame, alone: pd.Series, seed: int) -> dict[str, object]:
    """Tau by either score; networks whose score is not finite are tied in last place."""
    row: dict[str, object] = {}
    for name in ("error", "loss"):
        filled = scores[name].fillna(np.inf).rank(method="min").to_numpy()
        tau = agreement(filled, alone.to_numpy(), seed)[0]
        row |= {f"tau_{name}": tau.value, f"low_{name}": tau.low, f"high_{name}": tau.high}
    return {**row, "n": len(alone)}


def lines(rows: pd.DataFrame) -> Iterator[str]:
    yield "| supernet | tau by error | tau by loss |"
    yield "| --- | --: | --: |"
    for row in rows.itertuples():
        taus = [
            f"{getattr(row, f'tau_{by}'):.3f} "
            f"({getattr(row, f'low_{by}'):.3f} to {getattr(row, f'high_{by}'):.3f})"
            for by in ("error", "loss")
        ]
        yield f"| {row.supernet} | {' | '.join(taus)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/rank_settings"))
    given = parser.parse_args()
    networks = pd.read_csv(given.run_dir / "rank" / "networks.csv", dtype={"genes": str})
    networks = networks[networks["status"] == "ok"]
    settings = config.load_run(given.run_dir)
    path = given.out / "settings.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["supernet"])
    for name, own, overrides in tries():
        if (rows["supernet"] == name).any():
            continue
        folder = given.out / "".join(c if c.isalnum() else "_" for c in name)
        if own:
            shutil.copytree(given.run_dir / "supernet", folder / "supernet", dirs_exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        scores = scored(given.run_dir, overrides, folder, networks["genes"].tolist())
        seed = derive_seed(settings.seed, "rank", "resamples")
        scores.to_csv(folder / "scores.csv", index=False)
        row = {"supernet": name, **told(scores, networks["alone_error"], seed)}
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        rows.to_csv(path, index=False)
        print(row, flush=True)
    order = [name for name, _, _ in tries()]
    rows = rows.sort_values("supernet", key=lambda names: names.map(order.index))
    rows.to_csv(path, index=False)
    text = "\n".join(lines(rows)) + "\n"
    (given.out / "settings.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
