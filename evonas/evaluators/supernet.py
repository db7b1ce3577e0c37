"""The evaluator that trains one network for all, and scores each with the weights they share."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from evonas.core import (
    Candidate,
    Cost,
    Evaluation,
    Metric,
    SearchFailed,
    Status,
    UserError,
    derive_seed,
)
from evonas.data.dataset import Images
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.loop import error_text
from evonas.metrics import LATENCY, TRAINED, VALIDATED
from evonas.oneshot.latency import COLUMNS as LATENCY_COLUMNS
from evonas.oneshot.latency import Latency, LatencyTable, measured
from evonas.oneshot.supernet import SlicedSupernet, Supernet, supernet
from evonas.oneshot.training import CURVE, POOL, SharedTraining, SupernetTraining, score, subnet
from evonas.protocols import Need, Setting
from evonas.records import checkpoint, tables
from evonas.training.batches import resident
from evonas.training.loop import out_of_memory, threads
from evonas.training.recipe import Recipe
from genomes import Genome, SearchSpace

FOLDER = "supernet"

log = logging.getLogger("evonas")


class SupernetParams(SharedTraining):
    name: Literal["supernet"] = "supernet"
    alone: Recipe | None = None
    """How finalists are trained, each on its own, and what `evonas train` and `rank` train. Without
    it, as `recipe` says."""
    latency: Latency | None = None
    """Measures how long each op takes on this machine, and gives a metric `latency_ms`, known
    without scoring. Keys: `batch`, how many images at a time (1); `repeats`, how often each op is
    run, of which the median counts (20). `{}` has both as they are. Without it, there is no such
    metric."""

    @property
    def recipe_alone(self) -> Recipe:
        return self.alone or self.recipe


class SupernetEvaluator:
    """Trains a supernet once, before the search, and scores each candidate with its weights (SPOS,
    Guo et al., 2020).

    A candidate with a budget, as finalists have, is trained on its own as `train` does it.
    """

    Params = SupernetParams
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.DATA, Need.FINAL_BUDGET, Need.SUPERNET, Need.WORKERS}
    )

    def __init__(self, params: SupernetParams, setting: Setting) -> None:
        self.params = params
        self.seed = setting.seed
        self.alone = TrainEvaluator(TrainParams(recipe=params.recipe_alone), setting)
        self.folder: Path | None = None
        self.table: LatencyTable | None = None
        self.metrics = (*self.alone.metrics, *([LATENCY] if params.latency is not None else []))
        with torch.device("meta"):  # without weights: a space that has none is refused at once
            self._check(supernet(self.space, **self._arguments))

    @staticmethod
    def metrics_of(params: SupernetParams) -> tuple[Metric, ...]:
        return TRAINED if params.latency is None else (*TRAINED, LATENCY)

    @property
    def space(self) -> SearchSpace:
        return self.alone.space

    @property
    def fingerprint(self) -> str:
        return self.alone.fingerprint

    @property
    def _arguments(self) -> dict[str, Any]:
        """What the networks are built with."""
        return self.alone.training.arguments

    def cheap(self, genome: Genome) -> dict[str, float]:
        return {**self.alone.cheap(genome), **self._latency(genome)}

    def _latency(self, genome: Genome) -> dict[str, float]:
        return {} if self.table is None else {LATENCY.name: self.table.latency(genome)}

    def most(self) -> dict[str, float]:
        largest = self.space.largest()
        return {} if largest is None else self.cheap(largest)

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        """Trains the supernet, an epoch at a time; a kill costs an epoch at most.

        Yields:
            How many epochs are done, and how many there are.

        Raises:
            SearchFailed: the training failed.
        """
        yield from self.alone.prepare(run_dir)
        self.folder = run_dir / FOLDER
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "weights.safetensors").exists():
            yield from self._trained(self.folder)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)  # of a kill after the weights
        if self.params.latency is not None:
            self.table = self._latency_table(self.folder / "latency.csv")

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if candidate.budget is not None:
            trained = self.alone.evaluate(candidate, seed)
            if self.table is None:
                return trained
            values = {**trained.values, **self._latency(candidate.genome)}
            return replace(trained, values=values, deterministic=False)
        alone, hardware = self.alone, self.alone.hardware
        torch.set_num_threads(hardware.threads)
        if hardware.device == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        values = {}
        genome, data = candidate.genome, resident(alone.data, torch.device(hardware.device))
        try:
            network = subnet(self.space, self._shared(), genome, self._arguments)
            values |= alone.profiled(genome, network)
            values |= self.cheap(genome)
            found = score(network, data, self.params, hardware)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            message = "out of memory"
            return Evaluation(
                candidate, values, Status.OUT_OF_MEMORY, message=message, deterministic=False
            )
        fixed = self.table is None
        if not math.isfinite(found["loss"]):
            message = "the loss with inherited weights is NaN or infinite"
            return Evaluation(candidate, values, Status.DIVERGED, Cost(), message, fixed)
        values |= {VALIDATED[name].name: value for name, value in found.items()}
        values |= alone.own_values(genome, network, data)
        return Evaluation(candidate, values, deterministic=fixed)

    def seconds(self) -> tuple[float, float]:
        return self._training().foreseen()

    def test(self, genome: Genome, weights: Path, test: Images) -> dict[str, float]:
        return self.alone.test(genome, weights, test)

    def _check(self, made: Supernet | SlicedSupernet) -> None:
        if isinstance(made, Supernet):
            return
        wanted = f"sampling: {self.params.sampling}" if self.params.sampling != "uniform" else ""
        wanted = "latency" if self.params.latency is not None else wanted
        if wanted:
            raise UserError(
                f"evaluator.{wanted}: needs genes that choose ops, which those of "
                f"{self.space.name} do not; allowed: sampling: uniform, and no latency"
            )

    def _trained(self, folder: Path) -> Iterator[tuple[int, int]]:
        """Trains the supernet and writes its weights, which say that it is done."""
        training = self._training()
        kept = folder / "checkpoint.pt"
        if kept.exists():
            try:
                state = torch.load(kept, map_location="cpu", weights_only=True)
                training.load_state_dict(state)
            except Exception as error:  # a damaged file raises whatever zip, pickle and torch do
                if isinstance(error, OSError) or out_of_memory(error):
                    raise SearchFailed(f"{kept} cannot be read now: {error_text(error)}") from None
                aside = kept.with_suffix(".damaged")
                log.warning("%s is damaged; the supernet is trained anew", kept)
                kept.replace(aside)
                yield from self._trained(folder)
                return
            log.info("the supernet goes on after epoch %d", training.epochs)
        while not training.done:
            row = training.epoch()
            checkpoint.write(kept, training.state_dict())
            self._write_tables(folder, training)
            log.info("supernet, epoch %(epoch)d: train loss %(train_loss).4f", row)
            yield training.epochs, self.params.epochs
        self._write_tables(folder, training)
        state = training.supernet.state_dict()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        aside = folder / "weights.part"
        try:
            save_file(weights, aside)
            aside.chmod(0o644)  # it is made for its owner's eyes alone
            with aside.open("rb") as written:
                os.fsync(written.fileno())  # before what it was made from is deleted
            aside.replace(folder / "weights.safetensors")
        except (OSError, SafetensorError) as error:  # a full disk
            raise SearchFailed(f"the supernet's weights cannot be written: {error}") from None
        kept.unlink(missing_ok=True)

    def _training(self) -> SupernetTraining:
        alone = self.alone
        return SupernetTraining(
            self.params,
            space=self.space,
            network=alone.training.network,
            data=alone.data,
            hardware=alone.hardware,
            seed=self.seed,
        )

    def _write_tables(self, folder: Path, training: SupernetTraining) -> None:
        """From the state alone, so that a kill leaves nothing that differs."""
        tables.write_table(folder / "curve.csv", training.history.curve, CURVE)
        tables.write_table(folder / "pool.csv", training.history.pool, POOL)

    def _latency_table(self, path: Path) -> LatencyTable:
        """Measured once a run; a resume reads what was measured."""
        if path.exists():
            rows = pd.read_csv(path, dtype={"gene": str, "choice": str}, keep_default_na=False)
            return LatencyTable(self.space, rows.to_dict("records"))  # type: ignore[arg-type]  # their keys are text
        assert self.params.latency is not None
        shared = self._shared()
        assert isinstance(shared, Supernet)
        hardware = self.alone.hardware
        with threads(hardware.threads), hardware.autocast():
            table = measured(
                shared,
                self.alone.data.image_shape,
                self._arguments,
                self.params.latency,
                hardware,
                derive_seed(self.seed, "latency"),
            )
        tables.write_table(path, table.rows, LATENCY_COLUMNS)
        return table

    def _shared(self) -> Supernet | SlicedSupernet:
        """The trained supernet, on the device; loaded the first time that a process asks."""
        assert self.folder is not None
        path = self.folder / "weights.safetensors"
        name = f"{path} {path.stat().st_mtime_ns}"
        if name not in _loaded:
            _loaded.clear()  # one at a time
            with torch.device("meta"):
                made = supernet(self.space, **self._arguments)
            try:
                weights = load_file(path)
            except (OSError, SafetensorError) as error:
                raise SearchFailed(
                    f"{path} cannot be read: {error}; without it, a resume trains the supernet anew"
                ) from None
            made.load_state_dict(weights, assign=True)
            _loaded[name] = made.to(self.alone.hardware.device)
        return _loaded[name]


_loaded: dict[str, Supernet | SlicedSupernet] = {}
