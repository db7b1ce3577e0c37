"""A whole run, from an experiment to a run folder with a winner; and its resume."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from evonas import config, files, plugins, registry
from evonas.consistency import NO_FINALISTS
from evonas.core import Constraint, Generation, Question, UserError, derive_seed
from evonas.evaluators import pool, worker
from evonas.evaluators.cached import Cached
from evonas.evaluators.cached import create as create_cache
from evonas.evaluators.cluster import Cluster, OnCluster
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.experiment import Experiment, evaluator_of, has_finalists, own_files, strategy_of
from evonas.jobs import machine, sharing
from evonas.jobs.finalists import final_questions, run_finals
from evonas.jobs.hours import finals_in_time
from evonas.jobs.parts import Parts, build, fitted, make_strategy, try_out
from evonas.jobs.warm_start import Pool, desk_of_pool
from evonas.loggers import Described, Logged, Loggers
from evonas.loop import Answers, Desk, error_text, evolve
from evonas.metrics import refused
from evonas.protocols import (
    Dispatcher,
    Evaluator,
    Identified,
    Need,
    Prepares,
    SteadyState,
    Strategy,
    Traced,
    Trains,
)
from evonas.records import tables
from evonas.records.archive import known_references
from evonas.records.folder import Hold, begin, check_run_folder, note_data, note_resume, note_start
from evonas.records.guessing import parts_of
from evonas.records.run import RunFolder
from evonas.training.loop import warm_up
from evonas.training.states import keep_pending
from genomes import Genome

TABLES = (
    *("evaluations", "generations", "fronts", "front", "finalists", "timings", "split"),
    "warm_start",
)
RESUMABLE = (
    *("hours", "stop", "finalists", "training"),
    *("parallel.workers", "parallel.timeout", "parallel.backend", "parallel.address", "cache"),
    "logging",
)

log = logging.getLogger("evonas")


class Run:
    """A search in its folder, opened by `start` or `resume`.

    Iterating searches one generation at a time, from the last checkpoint on; `finish` trains the
    finalists and names the winner.

    Args:
        since: when the command began, by `time.monotonic`: the hours of the run begin there.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        parts: Parts,
        strategy: Strategy,
        workers: Workers,
        cluster: Cluster | None,
        loggers: Loggers,
        since: float,
    ) -> None:
        self.path = folder.path
        self.experiment = experiment
        self.folder = folder
        self.parts = parts
        self.strategy = strategy
        self._workers = workers
        self._cluster = cluster
        self.loggers = loggers
        self._since = since
        self._beginning = 0.0  # seconds from the command to the search
        self._messages: set[str] = set()  # those already logged
        self._warm = experiment.warm_start is None  # or the strategy has the best of the pool
        self._from_pool: list[str] = []  # the keys of these networks
        self._seconds = 0.0  # on the search's clock, at the last answer of its generations

    def prepare(self) -> Iterator[tuple[int, int]]:
        """Prepare the evaluator, which may train what all candidates share.

        Yields:
            The number of epochs done, and the number of all epochs.
        """
        self._beginning = self._beginning or time.monotonic() - self._since
        self.folder.journal.start_clock(None if self.experiment.hours is None else self._since)
        if isinstance(self.parts.evaluator, Prepares):
            yield from self.parts.evaluator.prepare(self.path)

    def warm_start(self) -> Iterator[tuple[int, int]]:
        """Rank the pool of a warm start, and let the strategy begin with its best networks.

        The evaluator must be prepared. The journal has what was measured before a kill.

        Yields:
            The number of networks measured, and the number of all.

        Raises:
            SearchFailed: no network can be ranked.
        """
        if self._warm:
            return
        settings = self.experiment.warm_start
        assert settings is not None
        space = self.parts.setting.space
        _, params = strategy_of(self.experiment.strategy)
        desk = desk_of_pool(
            self.parts.evaluator,
            self.parts.setting,
            settings.names,
            self._dispatched,
            self.folder.journal,
        )
        pool = Pool(settings, params, space, desk)
        for done in pool:
            yield done, len(pool.asked)
        self.folder.journal.sync()
        tables.write_table(self.path / "warm_start.csv", pool.rows(), pool.columns)
        log.info("ranked %d networks, to begin with %d of them", len(pool.asked), len(pool.best()))
        self.strategy = make_strategy(self.experiment, self.parts.setting, pool.seeded())
        if self.folder.strategy is not None:
            self.strategy.load_state_dict(self.folder.strategy)
        self._from_pool = pool.keys()
        self._warm = True

    def __iter__(self) -> Iterator[Generation]:
        """Search, and yield each generation once it is recorded.

        Raises:
            SearchFailed: the last evaluations all failed, or all of a short search.
        """
        for _ in chain(self.prepare(), self.warm_start()):
            pass
        folder, archive = self.folder, self.folder.archive
        log.info("starting after generation %d", archive.generations)
        self._note_references()
        self._tell_what_is_there()
        told = Logged(folder.journal, self.loggers) if self.loggers else folder.journal
        desk = self._desk(self.experiment.constraints, told)
        stop, since = self.experiment.stop, archive.position
        self._note_seconds(archive.asked)
        enough = self._has_enough if stop.seconds or stop.stagnation else None
        for generation in evolve(self.strategy, desk, stop=stop, since=since, enough=enough):
            self._outdate_finals()
            strategy, whole = self.strategy, generation.complete
            row = folder.record(
                generation,
                strategy.state_dict() if whole else None,
                strategy.trace() if isinstance(strategy, Traced) and whole else None,
            )
            keep_pending(self.path / "scratch", strategy, desk)
            self._note_references()
            self._note_seconds(generation.questions)
            self._log(generation)
            self.loggers.generation(row, complete=whole)
            yield generation
            archive.check_alive()
        archive.check_alive(ended=True)
        self._plan_finals()

    def finals(self) -> list[Question]:
        """Return what the finals ask, once the search has ended: one question per training."""
        groups = final_questions(self.folder, self.experiment, self._desk(()))
        return [asked.question for _, group in groups for asked in group]

    def finish(self) -> None:
        """Train the finalists and test the winner, unless that is done."""
        if self.experiment.hours is None:
            self.folder.journal.stop_clock()
        log.info("finalists")
        run_finals(self.folder, self.experiment, self._desk(()), self._test)
        log.info("done")
        self.loggers.finished = True
        self.folder.clean_scratch()

    def _note_seconds(self, questions: Iterable[Question]) -> None:
        # The journal alone decides where a limit in seconds ends the search, so that a resume, and
        # a run that is made anew from its journal, ends there too.
        arrivals = map(self.folder.journal.arrived, questions)
        self._seconds = max(self._seconds, max(arrivals, default=0.0))

    def _has_enough(self) -> bool:
        """Return whether the generations so far reach `stop.seconds` or `stop.stagnation`."""
        stop = self.experiment.stop
        if stop.seconds is not None and self._seconds >= stop.seconds:
            return True
        if stop.stagnation is None or not self.folder.archive.generations:
            return False
        return tables.stagnation(self.folder.generations.path) >= stop.stagnation

    def _tell_what_is_there(self) -> None:
        """Tell the loggers what a kill has kept from them."""
        if not self.loggers:
            return
        seed, folder = self.experiment.seed, self.folder
        answers = [  # of the search: a pool, and finals, have seeds of their own
            (question, answer)
            for question, answer in folder.journal.items()
            if question.seed == derive_seed(seed, question.key)
        ]
        rows = tables.read(folder.generations.path).to_dict("records")
        self.loggers.begin(answers, [{str(k): v for k, v in row.items()} for row in rows])

    def _desk(self, constraints: Sequence[Constraint], answers: Answers | None = None) -> Desk:
        """Return a desk that evaluates in workers if the evaluator needs them."""
        experiment = self.experiment
        return Desk(
            self._evaluator,
            self.parts.setting.space,
            seed=experiment.seed,
            budget=experiment.budget,
            constraints=constraints,
            from_pool=self._from_pool,
            answers=self.folder.journal if answers is None else answers,
            dispatcher=self._dispatcher if _in_workers(experiment) else None,
        )

    @property
    def _evaluator(self) -> Evaluator:
        experiment, evaluator = self.experiment, self.parts.evaluator
        if experiment.cache is not None and isinstance(evaluator, Identified):
            return Cached(evaluator, Path(experiment.cache), self.path)
        return evaluator

    @cached_property
    def _dispatcher(self) -> Dispatcher:
        """What has candidates and finalists evaluated; the evaluator must be prepared."""
        return self._dispatched(self._evaluator)

    def _dispatched(self, evaluator: Evaluator) -> Dispatcher:
        parallel = self.experiment.parallel
        if self._cluster is None:
            return InWorkers(
                evaluator,
                self._workers,
                timeout=parallel.timeout,
                in_order=isinstance(self.strategy, SteadyState),
            )
        return OnCluster(
            evaluator,
            self._cluster,
            self.path,
            timeout=parallel.timeout,
            threads=parallel.threads,
            gpus=parallel.device != "cpu",
        )

    def _log(self, generation: Generation) -> None:
        for evaluation in generation.evaluations:
            if evaluation.status.failed:
                genome = evaluation.candidate.genome.text
                log.warning("%s %s: %s", genome, evaluation.status, evaluation.message)
            elif evaluation.message and evaluation.message not in self._messages:
                self._messages.add(evaluation.message)
                log.warning("%s", evaluation.message)
        log.info(
            "generation %d: %d evaluated, front of %d",
            generation.index + 1,  # counted as on screen
            len(generation.evaluations),
            len(self.folder.archive.front),
        )

    def _test(self, genome: Genome, weights: Path) -> tuple[float, int]:
        """Return the error of saved weights on the test images, and the number of these."""
        evaluator, test = self.parts.evaluator, self.parts.test
        assert isinstance(evaluator, Trains), "otherwise there are no finalists"
        assert test is not None
        here = weights.absolute()  # a network may change the working directory
        call = (evaluator.test, genome, here, test)
        (measured,) = pool.results(self._workers, worker.apart, [call])
        return measured["error"], len(test)

    def note_resume(self, before: Experiment) -> None:
        """Record the new settings and the machine of a resume.

        Args:
            before: the experiment as it was.

        Raises:
            UserError: the new limit is below the number of finished generations.
        """
        done, stop = self.folder.archive.generations, self.experiment.stop.generations
        if stop is not None and stop < done:
            raise UserError(
                f"is {stop}, but {done} generations are finished",
                hint=f"must be at least {done}",
                key="stop.generations",
            )
        if self.experiment.finalists != before.finalists:
            self._outdate_finals()
        self._write_settings()
        note_resume(self.path, _environment(self.experiment))

    def _plan_finals(self) -> None:
        """Divide the time that is left of the run's hours among the trainings of the finals.

        `config.yaml` has what was decided, so that a resume goes on with the same finals.
        """
        experiment, finalists = self.experiment, self.experiment.finalists
        if experiment.hours is None or finalists.budget is not None or not self.finals():
            return
        parallel = experiment.parallel
        usual, beside = tables.seconds_of_trainings(self.folder.timings.path)
        planned = finals_in_time(
            finalists,
            len(self.finals()) // finalists.seeds,
            experiment.hours,
            self.folder.journal.seconds(),
            workers=1 if parallel.workers == "auto" else parallel.workers,
            usual=usual,
            beside=beside,
            beginning=self._beginning,
            timeout=parallel.timeout,
        )
        self.experiment = experiment.model_copy(update={"finalists": planned})
        self._write_settings()

    def _write_settings(self) -> None:
        files.write_atomic(self.path / "config.yaml", config.dump(self.experiment), sync=True)

    def _note_references(self) -> None:
        """Write the references of the hypervolume into `config.yaml` once they are known."""
        objectives = tuple(
            objective.model_copy(update={"reference": reference})
            for objective, reference in zip(
                self.experiment.objectives, self.folder.archive.references, strict=True
            )
        )
        if objectives != self.experiment.objectives:
            self.experiment = self.experiment.model_copy(update={"objectives": objectives})
            self._write_settings()

    def _outdate_finals(self) -> None:
        """Mark earlier finals as no longer those of this search; they stay until there are new."""
        there = (self.path / "finalists.csv").exists() or self.folder.weights("winner").exists()
        if there and not tables.outdated(self.path):
            files.write_atomic(self.path / tables.OUTDATED, "", sync=True)


@contextmanager
def start(experiment: Experiment, path: Path, since: float | None = None) -> Iterator[Run]:
    """Open a new run in a new folder, which stays locked in the meantime.

    Args:
        since: when the command began, by `time.monotonic`; by default, now.

    Raises:
        UserError: the folder is not new, or the data are missing.
    """
    since = time.monotonic() if since is None else since
    plugin_digests = plugins.allow(own_files(experiment))
    resolved = fitted(_resolved(experiment))
    hold = begin(path, "config.yaml")
    resolved, rates = _shared(hold, resolved)
    space = registry.make_space(resolved.space)
    described = {
        "name": space.name,
        "size": space.size,
        "genes": [{"name": gene.name, "choices": list(gene.choices)} for gene in space.genes],
    }
    files.write_atomic(path / "space.json", json.dumps(described, indent=2) + "\n")
    environment = _environment(resolved)
    if rates:
        environment["images_per_second"] = rates
    note_start(path, environment, plugin_digests)
    # This comes last, since it makes the folder resumable.
    files.write_atomic(path / "config.yaml", config.dump(resolved), sync=True)
    # Some mistakes show only once the data are read.
    with _opened(hold, resolved, since, undo=True) as run:
        yield run


@contextmanager
def resume(
    path: Path,
    overrides: Sequence[str] = (),
    own: Sequence[Path] = (),
    since: float | None = None,
) -> Iterator[Run]:
    """Open a run in its folder to continue it; the folder stays locked in the meantime.

    Args:
        overrides: settings to change, such as `stop.generations=60`; only those in `RESUMABLE`.
        own: the user's Python files that the run depends on; nothing else is imported.
        since: as for `start`.

    Raises:
        UserError: it is not a run folder, or an override would change finished results.
    """
    since = time.monotonic() if since is None else since
    check_run_folder(path)
    for override in overrides:
        key = override.partition("=")[0]
        if not any(key == free or key.startswith(f"{free}.") for free in RESUMABLE):
            raise UserError(
                "cannot be changed in a resume",
                hint=f"allowed: {', '.join(RESUMABLE)}",
                key=f"--set {override}",
            )
    plugins.allow_recorded(path, own)
    before = config.load_run(path)
    experiment = _resolved(config.load_run(path, _planned_anew(overrides)))
    # Whoever answers there may have this process run anything; so may not the folder's author.
    named = any(override.startswith("parallel.address=") for override in overrides)
    if _on_cluster(experiment) and not named:
        address = experiment.parallel.address
        raise UserError(
            f"{path} was evaluated at {address}",
            hint=f"add --address {address} if that is a cluster of yours, or --workers N",
        )
    with _opened(Hold(path), experiment, since) as run:
        run.note_resume(before)
        yield run


def _planned_anew(overrides: Sequence[str]) -> list[str]:
    """Return overrides with which other hours are divided anew."""
    named = {override.partition("=")[0] for override in overrides}
    anew = []
    if "hours" in named:
        for key, section in (("stop.seconds", "stop"), ("finalists.budget", "finalists")):
            if not any(name == section or name.startswith(key) for name in named):
                anew.append(f"{key}=null")
    return [*anew, *overrides]


@contextmanager
def _opened(
    hold: Hold, experiment: Experiment, since: float, *, undo: bool = False
) -> Iterator[Run]:
    """Open the run of a locked folder, and unlock the folder afterwards.

    Args:
        undo: whether to delete the written files if a user error prevents the run.
    """
    with hold, ExitStack() as stack:
        workers = machine.workers(hold.path / "scratch", experiment.parallel)
        stack.enter_context(closing(workers))
        with hold.undone_on_mistake() if undo else nullcontext():
            cluster = None
            if _on_cluster(experiment):
                assert experiment.parallel.address is not None
                cluster = stack.enter_context(closing(Cluster(experiment.parallel.address)))
            run = _made(hold.path, experiment, workers, cluster, since, new=undo)
        with closing(run.folder), closing(run.loggers):
            yield run


def _in_workers(experiment: Experiment) -> bool:
    return Need.WORKERS in evaluator_of(experiment)[0].needs


def _on_cluster(experiment: Experiment) -> bool:
    return experiment.parallel.backend == "dask" and _in_workers(experiment)


def _made(
    path: Path,
    experiment: Experiment,
    workers: Workers,
    cluster: Cluster | None,
    since: float,
    *,
    new: bool,
) -> Run:
    if Need.DATA in evaluator_of(experiment)[0].needs and cluster is None:
        workers.warm(warm_up)
    parts = build(experiment)
    if new:
        try_out(parts, workers, experiment.parallel.timeout)
    trained_on = parts.setting.training
    val = trained_on.data.val if trained_on else None
    note_data(path, parts.evaluator.fingerprint, parts_of(val=val, test=parts.test))
    if parts.places is not None:
        tables.write_split(path, parts.places)
    if experiment.cache is not None:
        create_cache(Path(experiment.cache))
    strategy = make_strategy(experiment, parts.setting)
    folder = RunFolder(
        path,
        space=parts.setting.space,
        metrics=[metric.name for metric in parts.evaluator.metrics],
        objectives=experiment.objectives,
        references=known_references(experiment.objectives, parts.evaluator, experiment.constraints),
        traces=_traces(strategy),
    )
    if folder.strategy is not None:
        try:
            strategy.load_state_dict(folder.strategy)
        except Exception as error:  # a state of other data, or a plug-in's, may raise anything
            raise UserError(
                f"do not fit the strategy: {error_text(error)}",
                hint="delete them, and a resume goes by the journal",
                key=str(path / "checkpoints"),
            ) from error
    settings = experiment.model_dump(mode="json", exclude_none=True)
    loggers = Loggers(experiment.logging, Described(path, experiment.name, settings), strict=new)
    return Run(experiment, folder, parts, strategy, workers, cluster, loggers, since)


def _traces(strategy: Strategy) -> Mapping[str, Sequence[str]]:
    """Return the columns of a strategy's own tables, by table.

    Raises:
        UserError: a table has another table's name, or a column is named twice.
    """
    traces = strategy.TRACES if isinstance(strategy, Traced) else {}
    for table, names in traces.items():
        key = f"TRACES of {type(strategy).__name__}: {table}"
        if not table.isidentifier() or table in TABLES:
            hint = f"choose a name of letters, other than {', '.join(TABLES)}"
            raise UserError("cannot be the name of a table", hint=hint, key=key)
        for i, name in enumerate(names):
            if mistake := refused(name, {"generation"}, names[:i]):
                raise UserError(mistake, key=key)
    return traces


def _resolved(experiment: Experiment) -> Experiment:
    update: dict[str, Any] = {"parallel": machine.resolve(experiment.parallel)}
    if not has_finalists(experiment):
        update["finalists"] = NO_FINALISTS
    return experiment.model_copy(update=update)


def _shared(hold: Hold, experiment: Experiment) -> tuple[Experiment, dict[str, float]]:
    """Decide how many processes share a GPU, if that is to be measured; see `sharing.measured`."""
    parallel = experiment.parallel
    rates: dict[str, float] = {}
    if parallel.device == "cpu":
        return experiment, rates
    if parallel.per_device == "auto":
        try:
            with hold.undone_on_mistake():
                experiment, rates = sharing.measured(experiment)
        except BaseException as error:
            hold.release(error)
            raise
        parallel = experiment.parallel
    if parallel.per_device != 1 and not machine.mps_runs():
        log.warning(
            "CUDA's multi-process service does not run, so the %s processes of a GPU take turns; "
            "start it with `nvidia-cuda-mps-control -d` before the run",
            parallel.per_device,
        )
    return experiment, rates


def _environment(experiment: Experiment) -> dict[str, Any]:
    budgets = [experiment.budget, experiment.finalists.budget]
    timed = any(budget is not None and not budget.deterministic for budget in budgets)
    finalists = experiment.finalists
    timed |= experiment.hours is not None and finalists.top > 0 and finalists.budget is None
    evaluator, params = evaluator_of(experiment)
    timed |= any(metric.timed for metric in evaluator.metrics_of(params))
    # A limit in seconds says where the tables end, and changes no row of them.
    end = {} if experiment.stop.seconds is None else {"end": {"deterministic": False}}
    return {**machine.environment(deterministic=not timed), **end}
