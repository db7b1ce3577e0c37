"""The evaluator that trains each network on its own."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from evonas import files, plugins, provenance, registry
from evonas.contained import contained
from evonas.core import (
    Budget,
    Candidate,
    Cost,
    Evaluation,
    Metric,
    Params,
    State,
    Status,
    UserError,
    derive_seed,
    state_name,
    violation,
    weights_name,
)
from evonas.data.dataset import Images
from evonas.loop import error_text
from evonas.markdown import counted
from evonas.metrics import (
    FLOPS,
    ON_DEMAND,
    PARAMS,
    PEAK_MEMORY,
    TRAINED,
    VALIDATED,
    ZERO_COST,
)
from evonas.networks import proxies
from evonas.networks.decode import decode
from evonas.networks.memory import peak_memory
from evonas.networks.profile import profile
from evonas.protocols import Need, Setting
from evonas.training import gpu
from evonas.training.batches import Resident, ResidentData, resident
from evonas.training.loop import measure, out_of_memory, seeded, train
from evonas.training.norms import renew
from evonas.training.recipe import Recipe
from evonas.training.states import read_state, write_state
from evonas.training.weights import read_weights, save_weights
from genomes import Genome


class TrainParams(Params):
    name: Literal["train"] = "train"
    recipe: Recipe = Field(default_factory=Recipe)
    """How each network is trained; its keys are below."""

    @property
    def recipe_alone(self) -> Recipe:
        return self.recipe


class TrainEvaluator:
    """Decodes a genome, trains the network under the candidate's budget, measures it on val.

    With a run folder, the weights of each trained network are written to its `scratch/`, under the
    name that the evaluation gives, for the driver to keep or delete. Beside them is the state of
    each training that is shorter than the run's budget but has its horizon, so that a candidate
    which comes back with a larger budget (`Candidate.after`) goes on from there. Without the file
    it is trained from the beginning, with the same result.

    Attributes:
        states: the folder of the states; None if none are kept.
    """

    Params = TrainParams
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA, Need.BUDGET, Need.WORKERS})

    def __init__(self, params: TrainParams, setting: Setting) -> None:
        training = setting.trained()
        self.params = params
        self.recipe = params.recipe
        self.space = setting.space
        self.training = training
        self.data = data = training.data
        self.hardware = training.hardware
        self.budget = setting.budget
        self.seed = setting.seed
        self.constraints = setting.constraints
        self.proxies = proxies_asked(setting)
        self.sizes = (PEAK_MEMORY,) if PEAK_MEMORY.name in setting.named else ()
        owns = (own.metric for own in training.metrics)
        self.metrics = (*TRAINED, *self.sizes, *self.proxies, *owns)
        self.scratch: Path | None = None
        self.states: Path | None = None
        self.batch_size = min(self.recipe.batch_size, len(data.train))
        self._profiles: dict[Genome, dict[str, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_profiles": {}}  # this is sent with every candidate

    @staticmethod
    def metrics_of(params: TrainParams) -> tuple[Metric, ...]:
        return (*TRAINED, *ON_DEMAND)

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    def cheap(self, genome: Genome) -> dict[str, float]:
        if genome not in self._profiles:
            # Without weights, a large network is built and counted in a fraction of the time.
            weightless = self._only_ours and not self.sizes
            with contained(0), torch.device("meta" if weightless else "cpu"):
                self.profiled(genome, self.build(genome))
        return self._profiles[genome]

    def most(self) -> dict[str, float]:
        largest = self.space.largest()
        return {} if largest is None else self.cheap(largest)

    def effort(self, candidate: Candidate) -> float:
        """Return FLOPs times budget; 0 if a network of the user's would have to be built for it."""
        known = self._only_ours or candidate.genome in self._profiles
        if candidate.budget is None or not known:
            return 0.0
        done = candidate.after.amount if candidate.after else 0
        return self.cheap(candidate.genome)[FLOPS.name] * (candidate.budget.amount - done)

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        # A network may change the working directory.
        self.scratch = self.states = run_dir.absolute() / "scratch"
        files.make_folder(self.scratch)
        yield from ()

    @property
    def _only_ours(self) -> bool:
        """Whether no code of the user's is needed to count what a network costs."""
        own = any(own.metric.cheap for own in self.training.metrics)
        return type(self.space).__module__.partition(".")[0] == "genomes" and not own

    def build(self, genome: Genome) -> nn.Module:
        """Build the network of a genome, with fresh weights, on the CPU."""
        return decode(self.space, genome, **self.training.arguments)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if candidate.budget is None:
            raise ValueError("a training needs a budget")
        torch.set_num_threads(self.hardware.threads)
        on_gpu, batch = self.hardware.device == "cuda", self.batch_size
        if on_gpu:
            gpu.take()
        evaluation = self._attempt(candidate, candidate.budget, seed, batch)
        if on_gpu:
            gpu.give_back()
        if evaluation.status is Status.OUT_OF_MEMORY:
            evaluation = self._attempt(candidate, candidate.budget, seed, (batch + 1) // 2)
            evaluation = replace(evaluation, deterministic=False)
            if on_gpu:
                gpu.give_back()
        return evaluation

    def identity(self, candidate: Candidate, seed: int) -> dict[str, Any]:
        """Return everything that an evaluation depends on; the genes are in the spelling asked."""
        space, parts = self.space, (self, self.space)
        build = registry.blueprint_of(space).build
        modules = {*(type(part).__module__ for part in parts), build.__module__}
        modules |= {module for own in self.training.metrics for module in own.modules}
        return {
            "evaluator": self.params.model_dump(mode="json"),
            "space": space.name,
            "genes": candidate.genome.text,
            "network": self.training.arguments,
            "metrics": [own.metric.name for own in self.training.metrics],
            **({"sizes": [metric.name for metric in self.sizes]} if self.sizes else {}),
            "proxies": {metric.name: self.seed for metric in self.proxies},
            "data": self.data.fingerprint,
            "flippable": self.data.flippable,
            "budget": candidate.budget.text if candidate.budget else "",
            "seed": seed,
            "hardware": {**asdict(self.hardware), "processor": _processor(self.hardware.device)},
            "versions": {
                "evonas": provenance.__version__,
                "code": provenance.code(*sorted(modules | plugins.sources(modules))),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    def test(self, genome: Genome, weights: Path, test: Images) -> dict[str, float]:
        """Measure error, top-5 error and loss of saved weights on images no search has seen."""
        torch.set_num_threads(self.hardware.threads)
        network = self.build(self.space.canonical(genome))
        network.load_state_dict(read_weights(weights))
        device = torch.device(self.hardware.device)
        part = Resident.of(test, device)
        data = resident(self.data, device)
        hardware = self.hardware.exact().suited_to(network, self.data.image_shape)
        return measure(hardware.place(network), part, data, hardware, 4 * self.batch_size)

    def _attempt(
        self, candidate: Candidate, budget: Budget, seed: int, micro_batch: int
    ) -> Evaluation:
        values: dict[str, float] = {}
        device = torch.device(self.hardware.device)
        try:
            with seeded(seed, self.hardware.device):
                data = resident(self.data, device)  # before a network that may change settings
                network = self.build(candidate.genome)
                values |= self.profiled(candidate.genome, network)
                values |= self.proxied(candidate.genome)
                if refused := self._refused(candidate, values):
                    return refused
                hardware = self.hardware.suited_to(network, self.data.image_shape)
                hardware.place(network)
                done = train(
                    network,
                    data,
                    self.recipe,
                    budget,
                    seed,
                    hardware,
                    micro_batch=micro_batch,
                    since=self._earlier(candidate, budget, seed),
                    goes_on=self._goes_on(budget) and micro_batch == self.batch_size,
                )
            if done.state is not None and self.states is not None:
                write_state(done.state, self.states / state_name(seed, budget.text))
            new = done.steps - done.earlier
            epochs = new / (len(data.train) // self.batch_size)
            cost = Cost(training_seconds=done.seconds, epochs=epochs, steps=new)
            renew(network, data, self.recipe, done.steps, micro_batch, hardware)
            measured = measure(network, data.val, data, hardware, 4 * micro_batch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            message = f"out of memory at {counted(micro_batch, 'image')} at a time"
            return Evaluation(
                candidate, values, Status.OUT_OF_MEMORY, message=message, deterministic=False
            )
        deterministic = budget.deterministic
        if done.diverged or not measured["loss"] < float("inf"):
            message = f"the loss was NaN or infinite after {counted(done.steps, 'step')}"
            return Evaluation(candidate, values, Status.DIVERGED, cost, message, deterministic)
        values |= {VALIDATED[name].name: value for name, value in measured.items()}
        values |= self.own_values(candidate.genome, network, data)
        weights = ""
        if self.scratch is not None:
            weights = weights_name(seed, budget.text)
            file = self.scratch / weights
            save_weights(network, candidate.genome, self.training.network, self.data, file)
        return Evaluation(
            candidate, values, cost=cost, deterministic=deterministic, weights=weights
        )

    def _earlier(self, candidate: Candidate, budget: Budget, seed: int) -> State | None:
        """Return the state of the training to go on with, if there is one."""
        after = candidate.after
        if after is None or self.states is None or not budget.goes_on_from(after):
            return None
        return read_state(self.states / state_name(seed, after.text))

    def _goes_on(self, budget: Budget) -> bool:
        """Return whether the network may come back with a larger budget."""
        whole = self.budget
        return self.states is not None and whole is not None and whole.goes_on_from(budget)

    def profiled(self, genome: Genome, network: nn.Module) -> dict[str, float]:
        """Return the params and FLOPs of a genome's network, and what else is asked of its size,
        counted once."""
        if genome not in self._profiles:
            size = profile(network, self.data.image_shape)
            self._profiles[genome] = {PARAMS.name: size.params, FLOPS.name: size.flops}
            if self.sizes:
                memory = peak_memory(self.build(genome), self.data.image_shape)
                self._profiles[genome][PEAK_MEMORY.name] = memory
            self._profiles[genome] |= self._own_cheap_values(genome)
        return self._profiles[genome]

    def proxied(
        self, genome: Genome, names: Collection[str] | None = None, batch: int = proxies.BATCH
    ) -> dict[str, float]:
        """Return zero-cost proxies of a genome's network, the same whatever else is evaluated.

        All networks have the same training images, and weights of the same seed, which derive from
        the run's.

        Args:
            names: which; by default, those that the experiment asks for.
            batch: the number of images.
        """
        names = [metric.name for metric in self.proxies] if names is None else names
        if not names:
            return {}
        seed = derive_seed(self.seed, "proxies")
        data = resident(self.data, torch.device(self.hardware.device))
        order = np.random.default_rng(seed).permutation(len(data.train))
        rows = torch.from_numpy(order[:batch]).to(data.train.labels.device)
        images, labels = data.normalised(data.train.images[rows]), data.train.labels[rows]
        return proxies.measured(lambda: self.build(genome), names, images, labels, seed)

    def _refused(self, candidate: Candidate, values: Mapping[str, float]) -> Evaluation | None:
        """Return the answer to a candidate that is not trained, by its proxies; None if it is."""
        if message := proxies.undefined(values):
            return Evaluation(candidate, values, Status.DIVERGED, message=message)
        names = [metric.name for metric in self.proxies]
        bounds = [bound for bound in self.constraints if bound.name in names]
        if violation(values, bounds) > 0:
            return Evaluation(candidate, values, Status.INFEASIBLE, Cost(attempts=0))
        return None

    def _own_cheap_values(self, genome: Genome) -> dict[str, float]:
        """Measure the user's own metrics that are known without training.

        They are given a network that nothing else uses, since they may change it; its weights are
        always the same.
        """
        owns = [own for own in self.training.metrics if own.metric.cheap]
        if not owns:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self.build(genome)
            try:
                return {
                    own.metric.name: own.measure(network=network, genome=genome) for own in owns
                }
            except Exception as error:  # a user's function may raise anything
                if out_of_memory(error):
                    raise
                names = ", ".join(own.metric.name for own in owns)
                raise UserError(f"{names} raised {error_text(error)}", key="metrics") from error

    def own_values(
        self, genome: Genome, network: nn.Module, data: ResidentData
    ) -> dict[str, float]:
        """Measure the user's own metrics that are known after training."""
        owns = [own for own in self.training.metrics if not own.metric.cheap]
        if not owns:
            return {}
        images = data.normalised(data.val.images)
        network.eval()
        with torch.no_grad():
            return {
                own.metric.name: own.measure(
                    network=network, genome=genome, images=images, labels=data.val.labels.clone()
                )
                for own in owns
            }


def proxies_asked(setting: Setting) -> tuple[Metric, ...]:
    """Return the zero-cost proxies that an objective or a constraint names."""
    return tuple(metric for metric in ZERO_COST if metric.name in setting.named)


@cache
def _processor(device: str) -> str:
    """Return the kind of processor that trains, as each kind rounds in its own way."""
    if device == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch's types lack it
        return f"{torch.cuda.get_device_name()}, cuDNN {cudnn}"
    return f"{provenance.processor()}, {torch.backends.cpu.get_cpu_capability()}"
