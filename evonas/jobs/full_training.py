"""The full training of a chosen network, which is tested once, at the end."""

from __future__ import annotations

import copy
import io
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import torch
from torch import nn

from evonas import config, files, plugins, registry, yamlfile
from evonas.binomial import standard_error
from evonas.core import SearchFailed, UserError, derive_seed
from evonas.data.dataset import DataSet, split, split_without_val
from evonas.experiment import Experiment, TrainingRun, own_files, recipe_of
from evonas.jobs import machine
from evonas.jobs.choice import Choice, read
from evonas.jobs.parts import fitted
from evonas.markdown import counted
from evonas.networks.decode import decode
from evonas.networks.profile import profile
from evonas.records import checkpoint, tables
from evonas.records.folder import Hold, begin, note_data, note_resume, note_start
from evonas.records.guessing import parts_of
from evonas.training.allocation import keep_freed_memory
from evonas.training.batches import Resident, resident
from evonas.training.loop import Trainer, measure, memory_guard, seeded
from evonas.training.norms import renew
from evonas.training.recipe import strengthened
from evonas.training.weights import save_weights

VERSION = 2  # the checkpoint's format

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Epoch:
    """A row of `curve.csv`.

    `train_loss` is the mean over the epoch's batches, augmented, each with the weights before its
    step. The validation columns are empty if no images are held out.
    """

    epoch: int
    lr: float  # at the epoch's last step
    train_loss: float  # nats
    val_loss: float | None = None  # nats
    val_error: float | None = None  # share of the validation images

    @property
    def text(self) -> str:
        """The losses in a few words."""
        error = "" if self.val_error is None else f" · val error {self.val_error:.4f}"
        return f"train loss {self.train_loss:.4f}{error}"


class FullTraining:
    """A full training in its folder, opened by `start` or `resume`.

    Iterating trains one epoch at a time, from the last checkpoint on, and saves a checkpoint after
    each: a kill costs at most one epoch, and the curve is the same as without it.
    """

    def __init__(
        self,
        path: Path,
        settings: TrainingRun,
        choice: Choice,
        trainer: Trainer,
        data: DataSet,
        test: Resident,
    ) -> None:
        """Create a training before its first epoch.

        Args:
            choice: the network's space, and its genome in the canonical spelling.
            data: the images to train on, and those held out.
        """
        self.path = path
        self.settings = settings
        self.choice = choice
        self.trainer = trainer
        self.network = trainer.network
        self.data = data
        self.test = test
        self.curve: list[Epoch] = []
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[Epoch]:
        """Train the remaining epochs.

        Raises:
            SearchFailed: the loss became NaN or infinite, or memory ran out.
        """
        device = self.trainer.hardware.device
        for number in range(len(self.curve), self.settings.epochs):
            started = time.perf_counter()
            epoch_seed = derive_seed(self.settings.seed, "epoch", number)
            message = (
                f"out of memory with batches of "
                f"{counted(self.settings.recipe.batch_size, 'image')}; start a "
                "new training with another --out and a smaller --set recipe.batch_size=N"
            )
            with memory_guard(message), seeded(epoch_seed, device):
                epoch = self._epoch(number)
            self.curve.append(epoch)
            self.seconds.append(round(time.perf_counter() - started, 3))
            self._save()
            log.info("epoch %d: %s", epoch.epoch, epoch.text)
            yield epoch

    def finish(self) -> None:
        """Write the weights and `result.csv`: the test score and its standard error.

        Only here is the test part measured.
        """
        self.trainer.put_average(self.network)
        self._renew(self.network)
        saved = self.path / "weights.safetensors"
        network = self.settings.space.model_dump(exclude={"name"})
        save_weights(self.network, self.choice.genome, network, self.data, saved)
        measured = self._measured(self.network, self.test)
        sizes = profile(self.network, self.data.image_shape)
        error, images = measured["error"], len(self.test)
        row = {
            "key": self.choice.key,
            "genome": self.choice.space.describe(self.choice.genome),
            "genes": self.choice.genome.text,
            "epochs": self.settings.epochs,
            "seed": self.settings.seed,
            **asdict(sizes),
            "train_images": len(self.data.train),
            "test_images": images,
            "test_error": error,
            "test_error_se": standard_error(error, images),
            "test_top5_error": measured["top5_error"],
            "test_loss": measured["loss"],
        }
        tables.write_table(self.path / "result.csv", [row], list(row))
        log.info("done")

    def _epoch(self, number: int) -> Epoch:
        trainer, settings = self.trainer, self.settings
        batches = trainer.epoch()
        total = torch.zeros((), device=self.test.labels.device)
        self.network.train()
        for rows in batches:
            progress = trainer.steps / (trainer.epoch_steps * settings.epochs)
            total += trainer.step(rows, progress)
        loss = float(total) / len(batches)
        if not math.isfinite(loss):
            raise SearchFailed(
                f"the loss became NaN or infinite in epoch {number + 1}; start a new training with "
                "another --out and a lower --set recipe.lr=X"
            )
        if not settings.hold_out:
            return Epoch(number + 1, trainer.lr, loss)
        network = copy.deepcopy(self.network)  # whose statistics may be measured anew
        trainer.put_average(network)
        self._renew(network)
        measured = self._measured(network, trainer.data.val)
        return Epoch(number + 1, trainer.lr, loss, measured["loss"], measured["error"])

    def _renew(self, network: nn.Module) -> None:
        trainer = self.trainer
        size = trainer.batch_size
        renew(network, trainer.data, trainer.recipe, trainer.steps, size, trainer.hardware)

    def _measured(self, network: nn.Module, part: Resident) -> dict[str, float]:
        trainer = self.trainer
        batch_size = 4 * trainer.batch_size
        return measure(network, part, trainer.data, trainer.hardware.exact(), batch_size)

    def _save(self) -> None:
        """Write the checkpoint, then the tables, which a resume restores from it."""
        state = {
            "version": VERSION,
            "trainer": self.trainer.state_dict(),
            "curve": [asdict(epoch) for epoch in self.curve],
            "seconds": self.seconds,
        }
        checkpoint.write(self.path / "checkpoint.pt", state)
        self._write_tables()

    def restore(self) -> None:
        """Restore the state after the last saved epoch, if there is one, and write the tables."""
        path = self.path / "checkpoint.pt"
        if path.exists():
            try:
                state = torch.load(
                    io.BytesIO(files.read(path)), map_location="cpu", weights_only=True
                )
            except Exception:  # zip, pickle and torch may raise anything for a damaged file
                raise UserError(
                    f"{path} is damaged", hint="delete it to restart from the first epoch"
                ) from None
            if state["version"] > VERSION:
                raise UserError(
                    f"{path} has format {state['version']}, and this evonas reads up to {VERSION}",
                    hint="update evonas",
                )
            self.trainer.load_state_dict(state["trainer"])
            columns = Epoch.__dataclass_fields__  # version 1 measured the test part in each epoch
            self.curve = [
                Epoch(**{name: row[name] for name in columns if name in row})
                for row in state["curve"]
            ]
            self.seconds = state["seconds"]
            log.info("continuing after epoch %d", len(self.curve))
        self._write_tables()

    def _write_tables(self) -> None:
        columns = list(Epoch.__dataclass_fields__)
        tables.write_table(self.path / "curve.csv", map(asdict, self.curve), columns)
        timings = [
            {"epoch": epoch.epoch, "seconds": seconds}
            for epoch, seconds in zip(self.curve, self.seconds, strict=True)
        ]
        tables.write_table(self.path / "timings.csv", timings, ["epoch", "seconds"])


@contextmanager
def start(settings: TrainingRun, path: Path) -> Iterator[FullTraining]:
    """Open a new training in a new folder, which stays locked in the meantime.

    Raises:
        UserError: the folder is not empty, or the data are missing.
    """
    resolved = settings.model_copy(update={"parallel": machine.resolve(settings.parallel)})
    with begin(path, "training.yaml") as hold:
        with hold.undone_on_mistake():  # some mistakes show only once the data are read
            digests = plugins.record(own_files(resolved))
            note_start(path, machine.environment(deterministic=True), digests)
            files.write_atomic(path / "training.yaml", config.dump(resolved), sync=True)
            training = _built(path, resolved)
        yield training


@contextmanager
def resume(path: Path, own: Sequence[Path] = ()) -> Iterator[FullTraining]:
    """Open a training in its folder to continue it; the folder stays locked in the meantime.

    Args:
        own: the user's Python files that the training depends on; nothing else is imported.

    Raises:
        UserError: the folder is damaged, or the data changed since the training started.
    """
    files.check_folder(path)
    plugins.allow_recorded(path, own)
    settings = config.load_training(path / "training.yaml")
    parallel = machine.resolve(settings.parallel)
    with Hold(path):
        training = _built(path, settings.model_copy(update={"parallel": parallel}))
        note_resume(path, machine.environment(deterministic=True))
        yield training


def _built(path: Path, settings: TrainingRun) -> FullTraining:
    """Read the data, and build the training as it was after its last saved epoch."""
    hardware = machine.hardware(settings.parallel)
    torch.set_num_threads(hardware.threads)
    machine.take_gpu(settings.parallel.device)
    keep_freed_memory()
    device = torch.device(hardware.device)
    source = registry.load("data", registry.name_of(settings.data))(settings.data)
    divide = split if settings.hold_out else split_without_val
    data, test = divide(source, settings.data)
    note_data(path, data.fingerprint, parts_of(test=test))
    choice = read(settings.genome, settings).canonical
    seed = derive_seed(settings.seed, choice.key, "training")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = decode(
            choice.space,
            choice.genome,
            in_channels=data.image_shape[0],
            classes=data.classes,
            **settings.space.model_dump(exclude={"name"}),
        )
    hardware = hardware.suited_to(network, data.image_shape)
    hardware.place(network)
    images, on_gpu = resident(data, device), hardware.device == "cuda"
    trainer = Trainer(network, images, settings.recipe, seed, hardware, capture=on_gpu)
    training = FullTraining(path, settings, choice, trainer, data, Resident.of(test, device))
    training.restore()
    return training


def check_trains(experiment: Experiment) -> None:
    """Raise UserError if an experiment has no images to train on."""
    if experiment.data is None:
        name = registry.name_of(experiment.evaluator)
        raise UserError(
            f"the evaluator {name} does not train", hint="give a run, or an experiment, with data"
        )


def settings_for(
    experiment: Experiment, genome: str, overrides: Sequence[str] = (), folder: Path = Path()
) -> TrainingRun:
    """Return the settings for a full training of a genome of an experiment.

    Args:
        genome: any text that `choice.read` accepts.
        overrides: settings that replace the experiment's, such as `epochs=50` or `recipe.lr=0.05`.
        folder: the folder that paths in the overrides are relative to.

    Raises:
        UserError: an override or the genome is invalid.
    """
    check_trains(experiment)
    assert experiment.data is not None
    training = experiment.training
    recipe = training.recipe or recipe_of(experiment)
    document: dict[str, Any] = {
        "name": experiment.name,
        "genome": genome,
        "space": experiment.space.model_dump(mode="json", exclude_none=True),
        "data": experiment.data.model_dump(mode="json", exclude_none=True, exclude={"subset"}),
        "epochs": training.epochs,
        "hold_out": training.hold_out,
        "recipe": {} if recipe is None else recipe.model_dump(mode="json", exclude_none=True),
        "seed": training.seed,
        "parallel": {
            **experiment.parallel.local.model_dump(
                mode="json", exclude_none=True, exclude={"timeout"}
            ),
            "workers": 1,
            "threads": joblib.cpu_count(),
        },
    }
    settings = config.check(yamlfile.overridden(document, overrides), folder, TrainingRun)
    settings = fitted(settings)
    canonical = read(settings.genome, settings).canonical
    given = {override.partition("=")[0] for override in overrides}
    strong = [key for key in training.strong or () if not given & {"recipe", f"recipe.{key}"}]
    recipe = strengthened(settings.recipe, strong, settings.epochs)
    return settings.model_copy(update={"genome": canonical.genome.text, "recipe": recipe})
