"""The evaluator that trains one network for all, and scores each with the weights they share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from safetensors import SafetensorError

from evonas import files
from evonas.core import (
    Candidate,
    Cost,
    Evaluation,
    Metric,
    SearchFailed,
    Status,
    UserError,
    derive_seed,
    violation,
)
from evonas.data.dataset import Images
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.loop import error_text
from evonas.metrics import LATENCY, ON_DEMAND, TRAINED, VALIDATED
from evonas.oneshot.costs import SIZES, NetworkSizes
from evonas.oneshot.latency import COLUMNS as LATENCY_COLUMNS
from evonas.oneshot.latency import Latency, LatencyTable, measure_ops
from evonas.oneshot.supernet import SlicedSupernet, Supernet, supernet
from evonas.oneshot.training import CURVE, POOL, SharedTraining, SupernetTraining, score, subnet
from evonas.protocols import Need, Setting
from evonas.records import checkpoint, tables
from evonas.training import gpu
from evonas.training.batches import resident
from evonas.training.loop import out_of_memory, threads
from evonas.training.recipe import Recipe
from evonas.training.weights import read_weights, write_weights
from genomes import Genome, SearchSpace

FOLDER = "supernet"
CHECKED = 5  # networks whose sizes are measured, to check what is summed up from their ops

log = logging.getLogger("evonas")


class SupernetParams(SharedTraining):
    name: Literal["supernet"] = "supernet"
    alone: Recipe | None = None
    """How finalists, and the networks of `evonas train` and `rank`, are trained, each on its own.
    Without it, as `recipe` says."""
    latency: Latency | None = None
    """Measures how long each op takes on this machine, for the metric `latency_ms`, which is known
    without scoring. Its keys are `batch`, the number of images at a time (1), and `repeats`, how
    often each op is run, of which the median counts (20). `{}` keeps both defaults. Without it,
    there is no such metric."""

    @property
    def recipe_alone(self) -> Recipe:
        return self.alone or self.recipe


class SupernetEvaluator:
    """Trains a supernet once, before the search, and scores each candidate with its weights (SPOS,
    Guo et al., 2020).

    A candidate with a budget, such as a finalist, is trained on its own, as by `train`.
    """

    Params = SupernetParams
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.DATA, Need.FINAL_BUDGET, Need.SUPERNET, Need.WORKERS}
    )

    def __init__(self, params: SupernetParams, setting: Setting) -> None:
        self.params = params
        self.setting = setting
        self.alone = TrainEvaluator(TrainParams(recipe=params.recipe_alone), setting)
        self.folder: Path | None = None
        self.table: LatencyTable | None = None
        self.metrics = (*self.alone.metrics, *([LATENCY] if params.latency is not None else []))
        with torch.device("meta"):  # builds no weights, and refuses a space without a supernet
            self._check(supernet(self.space, **self._arguments))

    @staticmethod
    def metrics_of(params: SupernetParams) -> tuple[Metric, ...]:
        return (*TRAINED, *ON_DEMAND, *([LATENCY] if params.latency is not None else []))

    @property
    def space(self) -> SearchSpace:
        return self.alone.space

    @property
    def fingerprint(self) -> str:
        return self.alone.fingerprint

    @property
    def _arguments(self) -> dict[str, Any]:
        """The arguments that networks are built with."""
        return self.alone.training.arguments

    def cheap(self, genome: Genome) -> dict[str, float]:
        return {**self.alone.cheap(genome), **self._latency(genome)}

    def _latency(self, genome: Genome) -> dict[str, float]:
        return {} if self.table is None else {LATENCY.name: self.table.latency(genome)}

    def most(self) -> dict[str, float]:
        largest = self.space.largest()
        return {} if largest is None else self.cheap(largest)

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        """Train the supernet, an epoch at a time; a kill costs an epoch at most.

        Yields:
            The number of epochs done, and the number of all.

        Raises:
            SearchFailed: the training failed.
        """
        yield from self.alone.prepare(run_dir)
        self.folder = run_dir.absolute() / FOLDER
        files.make_folder(self.folder)
        if self.params.latency is not None:
            self.table = self._latency_table(self.folder / "latency.csv")
        if not (self.folder / "weights.safetensors").exists():
            yield from self._train_supernet(self.folder)
        files.remove(self.folder / "checkpoint.pt")  # left by a kill after the weights

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
            gpu.take()
        values = {}
        genome, data = candidate.genome, resident(alone.data, torch.device(hardware.device))
        try:
            network = subnet(self.space, self._shared(), genome, self._arguments)
            values |= alone.profiled(genome, network)
            values |= self.cheap(genome)
            values |= alone.proxied(genome)
            measured = score(network, data, self.params, hardware)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            message = "out of memory"
            return Evaluation(
                candidate, values, Status.OUT_OF_MEMORY, message=message, deterministic=False
            )
        fixed = self.table is None
        if not math.isfinite(measured["loss"]):
            message = "the loss with inherited weights is NaN or infinite"
            return Evaluation(candidate, values, Status.DIVERGED, Cost(), message, fixed)
        values |= {VALIDATED[name].name: value for name, value in measured.items()}
        values |= alone.own_values(genome, network, data)
        return Evaluation(candidate, values, deterministic=fixed)

    def seconds(self) -> tuple[float, float]:
        return self._training().foreseen()

    def test(self, genome: Genome, weights: Path, test: Images) -> dict[str, float]:
        return self.alone.test(genome, weights, test)

    def _check(self, shared: Supernet | SlicedSupernet) -> None:
        if isinstance(shared, Supernet):
            return
        sampling = self.params.sampling
        problem = f"{self.space.name} has no genes that choose ops"
        if self.params.latency is not None:
            raise UserError(problem, hint="leave out latency", key="evaluator.latency")
        if sampling != "uniform":
            problem = f"{sampling} does not apply, since {problem}"
            raise UserError(problem, hint="allowed: uniform", key="evaluator.sampling")

    def _train_supernet(self, folder: Path) -> Iterator[tuple[int, int]]:
        """Train the supernet and write its weights, whose file says that it is trained."""
        training = self._training()
        saved = folder / "checkpoint.pt"
        if saved.exists():
            try:
                state = torch.load(saved, map_location="cpu", weights_only=True)
                training.load_state_dict(state)
            except UserError:
                raise
            except Exception as error:  # a damaged file raises whatever zip, pickle and torch do
                if isinstance(error, OSError) or out_of_memory(error):
                    raise SearchFailed(f"{saved} cannot be read: {error_text(error)}") from None
                log.warning("%s is damaged; the supernet is trained from scratch", saved)
                files.move(saved, saved.with_suffix(".damaged"))
                yield from self._train_supernet(folder)
                return
            log.info("the training of the supernet continues after epoch %d", training.epochs)
        while not training.done:
            row = training.epoch()
            checkpoint.write(saved, training.state_dict())
            self._write_tables(folder, training)
            log.info("supernet, epoch %(epoch)d: train loss %(train_loss).4f", row)
            yield training.epochs, self.params.epochs
        self._write_tables(folder, training)
        # On the disk before the checkpoint is deleted.
        write_weights(training.supernet, folder / "weights.safetensors", sync=True)
        files.remove(saved)

    def _training(self) -> SupernetTraining:
        return SupernetTraining(self.params, self.setting, self._violation())

    def _violation(self) -> Callable[[Genome], float] | None:
        """Return what says how far a network is outside the constraints that the supernet keeps to;
        None if it keeps to none.
        """
        cheap = {metric.name for metric in self.metrics if metric.cheap}
        constraints = [each for each in self.setting.constraints if each.name in cheap]
        if not (self.params.within_constraints and constraints):
            return None
        if self.params.sampling == "dropout":
            log.warning("dropout trains no single networks, so it keeps to no constraints")
            return None
        values: Callable[[Genome], Mapping[str, float]] = self.cheap
        if {each.name for each in constraints} <= {*SIZES, LATENCY.name}:
            values = self._quickly() or values
        return lambda genome: violation(values(genome), constraints)

    def _quickly(self) -> Callable[[Genome], dict[str, float]] | None:
        """Return what sums up sizes and latency of a network from its ops; None if it may err."""
        with torch.random.fork_rng(devices=[]):
            shared = supernet(self.space, **self._arguments)
        if not isinstance(shared, Supernet):
            return None
        rng = np.random.default_rng(0)
        samples = [self.space.sample(rng) for _ in range(CHECKED)]
        sizes = NetworkSizes(shared, self.alone.data.image_shape, self.alone.cheap, samples)
        return (lambda genome: sizes.of(genome) | self._latency(genome)) if sizes.exact else None

    def _write_tables(self, folder: Path, training: SupernetTraining) -> None:
        """Write the tables from the state alone, so that they are the same after a kill."""
        tables.write_table(folder / "curve.csv", training.history.curve, CURVE)
        tables.write_table(folder / "pool.csv", training.history.pool, POOL)

    def _latency_table(self, path: Path) -> LatencyTable:
        """Measure the latency of each op, once per run; a resume reads the table."""
        if path.exists():
            rows = tables.read_text(path)
            return LatencyTable(self.space, rows.to_dict("records"))  # type: ignore[arg-type]  # their keys are text
        assert self.params.latency is not None
        hardware = self.alone.hardware
        with torch.random.fork_rng(devices=[]):
            shared = supernet(self.space, **self._arguments)
        assert isinstance(shared, Supernet)
        with threads(hardware.threads), hardware.autocast():
            table = measure_ops(
                shared.to(hardware.device),
                self.alone.data.image_shape,
                self._arguments,
                self.params.latency,
                hardware,
                derive_seed(self.setting.seed, "latency"),
            )
        tables.write_table(path, table.rows, LATENCY_COLUMNS)
        return table

    def _shared(self) -> Supernet | SlicedSupernet:
        """Return the trained supernet, on the device; each process loads it once."""
        assert self.folder is not None
        path = self.folder / "weights.safetensors"
        name = f"{path} {path.stat().st_mtime_ns}"
        if name not in _loaded:
            _loaded.clear()  # one at a time
            with torch.device("meta"):
                shared = supernet(self.space, **self._arguments)
            try:
                weights = read_weights(path)
            except (OSError, SafetensorError, ValueError) as error:
                hint = "delete it, then resume to train the supernet again"
                raise SearchFailed(f"{path} cannot be read: {error}; {hint}") from None
            shared.load_state_dict(weights, assign=True)
            _loaded[name] = shared.to(self.alone.hardware.device)
        return _loaded[name]


_loaded: dict[str, Supernet | SlicedSupernet] = {}
