"""The chosen network, trained in full: on all images but the test part, and tested at the end."""

from __future__ import annotations

import io
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import torch

from evonas import config, plugins, registry, yamlfile
from evonas.config import Experiment, TrainingRun, component_name
from evonas.core import SearchFailed, UserError, derive_seed
from evonas.data.dataset import split_without_val
from evonas.jobs import machine
from evonas.networks.decode import decode
from evonas.networks.profile import profile
from evonas.records import files, tables
from evonas.records.folder import Hold, begin, note_data
from evonas.training.batches import Resident, resident
from evonas.training.loop import Trainer, measure, out_of_memory, seeded
from evonas.training.weights import save_weights
from genomes import SearchSpace, library

VERSION = 1  # of the checkpoint

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Epoch:
    """A row of `curve.csv`.

    `train_loss` is the mean over the epoch's batches, each as it was trained on: augmented, and
    with the weights of its moment. Nothing is chosen by the test columns; they are there to look
    at, and the score is that of the last epoch.
    """

    epoch: int
    lr: float  # at the epoch's last step
    train_loss: float  # nats
    test_loss: float  # nats
    test_error: float  # share of the test images


class FullTraining:
    """One process's hold on a training folder. A context manager: leaving it frees the folder.

    Iterating trains, an epoch at a time, from where the folder stands, and checkpoints each: a
    kill costs an epoch at most, and the curve is that of a training that was never killed.
    """

    def __init__(self, hold: Hold, settings: TrainingRun) -> None:
        self.path = hold.path
        self.settings = settings
        self._hold = hold
        self._build()

    def __enter__(self) -> FullTraining:
        return self

    def __exit__(self, _: object = None, error: object = None, __: object = None) -> None:
        self._hold.release(error)

    def __iter__(self) -> Iterator[Epoch]:
        """The epochs still to do.

        Raises:
            SearchFailed: the loss became NaN or infinite, or memory ran out.
        """
        for number in range(len(self.curve), self.settings.epochs):
            started = time.perf_counter()
            try:
                with seeded(derive_seed(self.settings.seed, "epoch", number), self._device):
                    epoch = self._epoch(number)
            except (MemoryError, RuntimeError) as error:  # torch's own is one of the latter
                if not out_of_memory(error):
                    raise
                batch = self.settings.recipe.batch_size
                raise SearchFailed(
                    f"out of memory at {batch} images a batch; "
                    "allowed: a new training, with --out and a smaller --set recipe.batch_size=N"
                ) from None
            self.curve.append(epoch)
            self.seconds.append(round(time.perf_counter() - started, 3))
            self._save()
            log.info("epoch %d: test error %.4f", epoch.epoch, epoch.test_error)
            yield epoch

    def finish(self) -> None:
        """Writes the weights and `result.csv`: the test score and its standard error."""
        saved = self.path / "weights.safetensors"
        save_weights(self.network, self.genome, self._network_settings, self.data, saved)
        measured = self._measured()
        sizes = profile(self.network, self.data.image_shape)
        error, images = measured["error"], len(self.test)
        row = {
            "key": self.space.key(self.genome),
            "genome": self.space.describe(self.genome),
            "genes": self.genome.text,
            "epochs": self.settings.epochs,
            "seed": self.settings.seed,
            **asdict(sizes),
            "train_images": len(self.data.train),
            "test_images": images,
            "test_error": error,
            "test_error_se": math.sqrt(error * (1 - error) / images),
            "test_top5_error": measured["top5_error"],
            "test_loss": measured["loss"],
        }
        tables.write_table(self.path / "result.csv", [row], list(row))
        log.info("done")

    def _build(self) -> None:
        """Data, network and trainer, as they were after the last epoch that was kept."""
        settings = self.settings
        hardware = machine.hardware(settings.parallel)
        torch.set_num_threads(hardware.threads)
        machine.take_gpu(settings.parallel.device)
        self._device = hardware.device
        device = torch.device(hardware.device)
        source = registry.load("data", component_name(settings.data))(settings.data)
        self.data, test = split_without_val(source, settings.data)
        note_data(self.path, self.data.fingerprint)
        self.space = registry.make_space(settings.space)
        self.genome = self.space.canonical(_parsed(self.space, settings.genome))
        self._network_settings = settings.space.model_dump(exclude={"name"})
        seed = derive_seed(settings.seed, self.space.key(self.genome), "training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = decode(
                self.space,
                self.genome,
                in_channels=self.data.image_shape[0],
                classes=self.data.classes,
                **self._network_settings,
            )
        self.network.to(device)
        if hardware.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it
        self.test = Resident.of(test, device)
        self.trainer = Trainer(
            self.network, resident(self.data, device), settings.recipe, seed, hardware
        )
        self.curve: list[Epoch] = []
        self.seconds: list[float] = []
        self._restore()

    def _epoch(self, number: int) -> Epoch:
        trainer, settings = self.trainer, self.settings
        batches = trainer.epoch()
        total = torch.zeros((), device=self.test.labels.device)
        self.network.train()
        for rows in batches:
            done = trainer.steps / (trainer.epoch_steps * settings.epochs)
            total += trainer.step(rows, done)
        loss = float(total) / len(batches)
        if not math.isfinite(loss):
            raise SearchFailed(
                f"the loss became NaN or infinite in epoch {number + 1}; "
                "allowed: a new training, with --out and a lower --set recipe.lr=X"
            )
        measured = self._measured()
        lr = trainer.optimizer.param_groups[0]["lr"]
        return Epoch(number + 1, lr, loss, measured["loss"], measured["error"])

    def _measured(self) -> dict[str, float]:
        trainer = self.trainer
        batch_size = 4 * trainer.batch_size
        return measure(self.network, self.test, trainer.data, trainer.hardware, batch_size)

    def _save(self) -> None:
        """The checkpoint first: tables are written from it."""
        state = {
            "version": VERSION,
            "trainer": self.trainer.state_dict(),
            "curve": [asdict(epoch) for epoch in self.curve],
            "seconds": self.seconds,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        files.write_atomic(self.path / "checkpoint.pt", buffer.getvalue(), sync=True)
        self._write_tables()

    def _restore(self) -> None:
        path = self.path / "checkpoint.pt"
        if path.exists():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # a damaged file raises whatever zip, pickle and torch do
                raise UserError(
                    f"{path} is damaged; allowed: without it, the training begins anew"
                ) from None
            if state["version"] > VERSION:
                raise UserError(f"{path} has version {state['version']}; known: up to {VERSION}")
            self.trainer.load_state_dict(state["trainer"])
            self.curve = [Epoch(**row) for row in state["curve"]]
            self.seconds = state["seconds"]
            log.info("goes on after epoch %d", len(self.curve))
        self._write_tables()

    def _write_tables(self) -> None:
        columns = list(Epoch.__dataclass_fields__)
        tables.write_table(self.path / "curve.csv", map(asdict, self.curve), columns)
        timings = [
            {"epoch": epoch.epoch, "seconds": seconds}
            for epoch, seconds in zip(self.curve, self.seconds, strict=True)
        ]
        tables.write_table(self.path / "timings.csv", timings, ["epoch", "seconds"])


def start(settings: TrainingRun, path: Path) -> FullTraining:
    """A new training in a new folder.

    Raises:
        UserError: the folder holds something already, or the data are missing.
    """
    resolved = settings.model_copy(update={"parallel": machine.resolve(settings.parallel)})
    hold = begin(path, "training.yaml")
    found = machine.environment(deterministic=True)
    own = {file: plugins.allowed(file)[1] for file in config.own_files(resolved)}
    found |= {"plugins": own} if own else {}
    files.write_atomic(path / "environment.json", json.dumps(found, indent=2) + "\n")
    files.write_atomic(path / "training.yaml", config.dump(resolved), sync=True)
    with hold.released_on_error(undo=True):  # some mistakes show only with the data read
        return FullTraining(hold, resolved)


def resume(path: Path, own: Sequence[Path] = ()) -> FullTraining:
    """Goes on with a training folder; `own` are the user's Python files that it began with."""
    plugins.allow_recorded(path, own)
    settings = config.load_training(path / "training.yaml")
    parallel = machine.resolve(settings.parallel)
    hold = Hold(path)
    with hold.released_on_error():
        return FullTraining(hold, settings.model_copy(update={"parallel": parallel}))


def check_trains(experiment: Experiment) -> None:
    """Raises UserError where an experiment has no images to train with."""
    if experiment.data is None:
        name = component_name(experiment.evaluator)
        raise UserError(f"the evaluator {name} trains nothing; allowed: a run that has images")


def settings_for(
    experiment: Experiment, genome: str, overrides: Sequence[str] = (), folder: Path = Path()
) -> TrainingRun:
    """The full training of a genome, as an experiment and overrides would have it.

    Args:
        genome: as the space writes it, genes, or a key.
        overrides: `epochs=50`, `recipe.lr=0.05` and the like.
        folder: what a path among the overrides is relative to.

    Raises:
        UserError: an override, or the genome, makes no sense.
    """
    check_trains(experiment)
    assert experiment.data is not None
    wanted = experiment.training
    recipe = wanted.recipe or getattr(experiment.evaluator, "recipe", None)
    document: dict[str, Any] = {
        "name": experiment.name,
        "genome": genome,
        "space": experiment.space.model_dump(mode="json", exclude_none=True),
        "data": experiment.data.model_dump(mode="json", exclude_none=True, exclude={"subset"}),
        "epochs": wanted.epochs,
        "recipe": {} if recipe is None else recipe.model_dump(mode="json", exclude_none=True),
        "seed": wanted.seed,
        "parallel": {
            **experiment.parallel.model_dump(mode="json", exclude_none=True, exclude={"timeout"}),
            "workers": 1,
            "threads": joblib.cpu_count(),
        },
    }
    settings = config.check(yamlfile.overridden(document, overrides), folder, TrainingRun)
    space = registry.make_space(settings.space)
    canonical = space.canonical(_parsed(space, settings.genome))
    return settings.model_copy(update={"genome": canonical.text})


def key_of(settings: TrainingRun) -> str:
    """The key of the network that is trained."""
    space = registry.make_space(settings.space)
    return space.key(_parsed(space, settings.genome))


def chosen(run_dir: Path, which: str) -> str:
    """The genome of a run that a word or a key names.

    Args:
        which: `winner`, `best` (the first of the front), or a key of `evaluations.csv`.

    Raises:
        UserError: the run has none such.
    """
    if which == "winner":
        winner = tables.winner(run_dir)
        if winner is not None:
            return str(winner["genes"])
        raise UserError(f"{run_dir} has no winner yet; allowed: --genome best, or a key")
    table = run_dir / ("front.csv" if which == "best" else "evaluations.csv")
    try:
        frame = tables.read(table, text=("key", "genes"))
        found = (frame if which == "best" else frame[frame["key"] == which])["genes"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{table} is missing or damaged; allowed: a run's table") from None
    if found.empty:
        named = "no network on its front yet" if which == "best" else f"no {which}"
        raise UserError(
            f"{run_dir} has {named}; allowed: winner, best, or a key of its evaluations.csv"
        )
    return str(found.iloc[0])


def _parsed(space: SearchSpace, text: str) -> Any:
    try:
        return library.read(space, text)
    except ValueError as error:
        raise UserError(f"genome: {error}") from None
