"""A whole run: from an experiment to a run folder with a winner, and on from where it stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonas import config, plugins, registry
from evonas.config import Experiment, component_name
from evonas.core import Evaluator, Generation, Preparing, Strategy, Traced, UserError
from evonas.data.dataset import DataSet, Images, split
from evonas.evaluators.cached import Cached
from evonas.evaluators.parallel import Parallel
from evonas.evaluators.pool import Workers
from evonas.jobs import machine
from evonas.jobs.finalists import run_finals
from evonas.loop import evolve
from evonas.records import files
from evonas.records.archive import known_references
from evonas.records.folder import Hold, begin, check_run_folder, note_data
from evonas.records.run import RunFolder
from genomes import Genome, SearchSpace, Verbatim

RESUMABLE = (
    *("stop", "finalists", "training"),
    *("parallel.workers", "parallel.timeout", "cache"),
)

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Parts:
    """The live objects behind an experiment."""

    space: SearchSpace
    evaluator: Any  # an Evaluator; one that trains can also test saved weights
    strategy: Strategy
    data: DataSet | None
    test: Images | None
    fingerprint: str  # of what the evaluator measures on


class Run:
    """One process's hold on a run folder. A context manager: leaving it frees the folder.

    Iterating searches, a generation at a time, from wherever the folder stands; `finish` trains
    the finalists and names the winner.
    """

    def __init__(self, hold: Hold, experiment: Experiment) -> None:
        self.path = path = hold.path
        self.experiment = experiment
        self._hold = hold
        self._told: set[str] = set()
        settings = experiment.parallel
        self._workers = Workers(
            path / "scratch",
            int(settings.workers),
            threads=settings.threads,
            gpus=machine.visible(machine.gpus(settings.device)),
        )
        try:
            kind = registry.load("evaluators", component_name(experiment.evaluator))
            if kind.TRAINS:
                self._workers.warm(kind.warm_up)
            self.parts = build(experiment)
            note_data(path, self.parts.fingerprint)
            self.folder = RunFolder(
                path,
                space=self.parts.space,
                metrics=self.parts.evaluator.metrics,
                objectives=experiment.objectives,
                references=known_references(experiment.objectives, self._most()),
                traces=getattr(self.parts.strategy, "TRACES", {}),
            )
            if self.folder.strategy is not None:
                self.parts.strategy.load_state_dict(self.folder.strategy)
            evaluator = self.parts.evaluator
            if experiment.cache is not None:
                evaluator = Cached(evaluator, Path(experiment.cache))
            if kind.TRAINS:
                evaluator = Parallel(evaluator, self._workers, timeout=settings.timeout)
            self.evaluator: Evaluator = evaluator
            if not isinstance(self.parts.evaluator, Preparing):  # done later, for it takes long
                self.evaluator.prepare(path)
            log.info("begins after generation %d", self.folder.archive.generations)
        except BaseException:
            self._workers.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, _: object = None, error: object = None, __: object = None) -> None:
        self.folder.close()
        self._workers.close()
        self._hold.release(error)

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Trains what all candidates share, where the evaluator has such a thing.

        Yields:
            How many epochs are done, and how many there are.
        """
        evaluator = self.parts.evaluator
        if isinstance(evaluator, Preparing):
            yield from evaluator.prepare_epochs(self.path)

    def __iter__(self) -> Iterator[Generation]:
        for _ in self.prepare():
            pass
        experiment, folder, archive = self.experiment, self.folder, self.folder.archive
        self._note_references()
        for generation in evolve(
            self.parts.strategy,
            self.evaluator,
            space=self.parts.space,
            seed=experiment.seed,
            generations=experiment.stop.generations,
            evaluations=experiment.stop.evaluations,
            simulated_seconds=experiment.stop.simulated_seconds,
            budget=experiment.budget,
            constraints=experiment.constraints,
            answers=folder.journal,
            asked=archive.asked,
            done=(archive.generations, archive.evaluations),
            spent=archive.simulated_seconds,
        ):
            self._drop_finals()  # of a search that goes on
            strategy, whole = self.parts.strategy, generation.complete
            folder.record(
                generation,
                strategy.state_dict() if whole else None,
                strategy.trace() if isinstance(strategy, Traced) and whole else None,
            )
            self._note_references()
            for evaluation in generation.evaluations:
                if evaluation.status.failed:
                    genome = evaluation.candidate.genome.text
                    log.warning("%s %s: %s", genome, evaluation.status, evaluation.message)
                elif evaluation.message and evaluation.message not in self._told:
                    self._told.add(evaluation.message)
                    log.warning("%s", evaluation.message)
            log.info(
                "generation %d: %d evaluated, front of %d",
                generation.index,
                len(generation.evaluations),
                len(archive.front),
            )
            yield generation
            archive.check_alive()

    def finish(self) -> None:
        """Trains the finalists and tests the winner, unless that is done: `finalists.csv`."""
        log.info("finalists")
        run_finals(self.folder, self.experiment, self.evaluator, self._test)
        log.info("done")
        self.folder.clean_scratch()

    def _test(self, genome: Genome, weights: Path) -> tuple[float, int]:
        """The error of saved weights on the test images, and how many those are; in a worker."""
        evaluator, test = self.parts.evaluator, self.parts.test
        assert test is not None
        measured = self._workers.submit(evaluator.test, genome, weights, test).result()
        return measured["error"], len(test)

    def note_resume(self, before: Experiment) -> None:
        """Writes down what has changed since `before`, and where the run goes on.

        Raises:
            UserError: it would end before it stands.
        """
        done, stop = self.folder.archive.generations, self.experiment.stop.generations
        if stop is not None and stop < done:
            raise UserError(f"stop.generations: is {stop}; allowed: at least {done}, as are done")
        if self.experiment.finalists != before.finalists:
            self._drop_finals()
        files.write_atomic(self.path / "config.yaml", config.dump(self.experiment), sync=True)
        path, now = self.path / "environment.json", _environment(self.experiment)
        told = {**now, **json.loads(path.read_text())}
        told["resumed"] = [*told.get("resumed", []), now]
        files.write_atomic(path, json.dumps(told, indent=2) + "\n")

    def _most(self) -> Mapping[str, float]:
        """The most that each metric can be, where it is known, if it is needed.

        For what is known without training, the value of the largest network of the space; a table
        says it of all that it holds.
        """
        if all(o.reference is not None for o in self.experiment.objectives):
            return {}
        evaluator, space = self.parts.evaluator, self.parts.space
        if hasattr(evaluator, "most"):
            return dict(evaluator.most())
        largest = space.largest()
        return {} if largest is None else dict(evaluator.cheap(largest))

    def _note_references(self) -> None:
        """Writes the hypervolume's references into `config.yaml` once they are known."""
        objectives = tuple(
            objective.model_copy(update={"reference": reference})
            for objective, reference in zip(
                self.experiment.objectives, self.folder.archive.references, strict=True
            )
        )
        if objectives != self.experiment.objectives:
            self.experiment = self.experiment.model_copy(update={"objectives": objectives})
            files.write_atomic(self.path / "config.yaml", config.dump(self.experiment), sync=True)

    def _drop_finals(self) -> None:
        (self.path / "finalists.csv").unlink(missing_ok=True)
        self.folder.weights("winner").unlink(missing_ok=True)


def start(experiment: Experiment, path: Path) -> Run:
    """A new run in a new folder.

    Raises:
        UserError: the folder is there already, or the data are missing.
    """
    resolved = _resolved(experiment)
    own = plugins.allow(config.own_files(resolved))
    hold = begin(path, "config.yaml")
    space = registry.make_space(resolved.space)
    described = {
        "name": space.name,
        "size": space.size,
        "genes": [{"name": gene.name, "choices": list(gene.choices)} for gene in space.genes],
    }
    files.write_atomic(path / "space.json", json.dumps(described, indent=2) + "\n")
    found = _environment(resolved) | ({"plugins": own} if own else {})
    files.write_atomic(path / "environment.json", json.dumps(found, indent=2) + "\n")
    # Last: with it, the folder can be resumed.
    files.write_atomic(path / "config.yaml", config.dump(resolved), sync=True)
    with hold.released_on_error(undo=True):  # some mistakes show only with the data read
        return Run(hold, resolved)


def resume(path: Path, overrides: Sequence[str] = (), own: Sequence[Path] = ()) -> Run:
    """Goes on with a run folder.

    Args:
        overrides: `stop.generations=60` and the like; only what leaves the past as it is.
        own: the user's Python files that the run was begun with; nothing else is imported.

    Raises:
        UserError: no run folder, or an override that would change what has been done.
    """
    check_run_folder(path)
    for override in overrides:
        key = override.partition("=")[0]
        if not any(key == free or key.startswith(f"{free}.") for free in RESUMABLE):
            raise UserError(
                f"--set {override}: would change what has been done; "
                f"allowed in a resume: {', '.join(RESUMABLE)}"
            )
    plugins.allow_recorded(path, own)
    before = config.load(path / "config.yaml")
    experiment = _resolved(config.load(path / "config.yaml", overrides))
    hold = Hold(path)
    with hold.released_on_error():
        run = Run(hold, experiment)
    try:
        run.note_resume(before)
    except BaseException as error:
        run.__exit__(None, error)
        raise
    return run


def build(experiment: Experiment) -> Parts:
    """The live objects of an experiment; reads the data."""
    space = registry.make_space(experiment.space)
    kind = registry.load("evaluators", component_name(experiment.evaluator))
    network = experiment.space.model_dump(exclude={"name"})
    hardware = machine.hardware(experiment.parallel)
    data = test = None
    if experiment.data is None:
        evaluator = kind(experiment.evaluator, space=space)
        space = Verbatim(space)
    else:
        source = registry.load("data", component_name(experiment.data))(experiment.data)
        data, test = split(source, experiment.data)
        evaluator = kind(
            experiment.evaluator,
            space=space,
            network=network,
            data=data,
            hardware=hardware,
            **({"seed": experiment.seed} if getattr(kind, "SEEDED", False) else {}),
        )
    chooser = registry.load("strategies", component_name(experiment.strategy))
    if getattr(chooser, "TRAINS", False) or getattr(kind, "OWN_BUDGET", False):
        machine.take_gpu(experiment.parallel.device)  # a supernet is trained in this process
    strategy = chooser(
        experiment.strategy,
        space=space,
        objectives=experiment.objectives,
        constraints=experiment.constraints,
        seed=experiment.seed,
        **(
            {"network": network, "data": data, "hardware": hardware}
            if getattr(chooser, "TRAINS", False)
            else {}
        ),
    )
    fingerprint = evaluator.rows.fingerprint if data is None else data.fingerprint
    return Parts(space, evaluator, strategy, data, test, fingerprint)


def _resolved(experiment: Experiment) -> Experiment:
    update: dict[str, Any] = {"parallel": machine.resolve(experiment.parallel)}
    if experiment.data is None:
        update["finalists"] = config.NO_FINALS
    return experiment.model_copy(update=update)


def _environment(experiment: Experiment) -> dict[str, Any]:
    budgets = [experiment.budget, experiment.finalists.budget]
    timed = any(budget is not None and not budget.deterministic for budget in budgets)
    timed |= getattr(experiment.evaluator, "latency", None) is not None
    return machine.environment(deterministic=not timed)
