"""A controller that writes genomes gene by gene, and learns from their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from evonas import pareto
from evonas.core import (
    Candidate,
    Evaluation,
    Objective,
    Params,
    State,
    Status,
    UserError,
    derive_seed,
    violation,
)
from evonas.eager import Adam
from evonas.pareto import Array
from evonas.protocols import Setting
from evonas.strategies.generational import TRIES, Generational
from genomes import Genome

Positive = Annotated[float, Field(gt=0, le=1000)]


class ControllerParams(Params):
    name: Literal["controller"] = "controller"
    population: Annotated[int, Field(ge=1, le=100_000)] = 5
    """How many genomes the controller writes in each generation, and then learns from."""
    units: Annotated[int, Field(ge=1, le=10_000)] = 64
    """The number of units of its LSTM, and the size of the vectors that stand for choices."""
    lr: Annotated[float, Field(gt=0, le=10)] = 0.02
    """The learning rate of Adam. With `unseen: false`, 0.015 by default."""
    entropy: Annotated[float, Field(ge=0, le=100)] = 0.2
    """The weight of the entropy of its choices, in nats per gene, relative to the reward, in
    standard deviations. The larger it is, the longer the controller tries other choices. With
    `unseen: false`, 0.3 by default."""
    baseline_decay: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """The weight of earlier generations in the moving average that rewards are compared with."""
    temperature: Positive = 1.0
    """What logits are divided by; above 1, choices become more equally likely."""
    tanh_constant: Positive | None = None
    """A bound on the size of logits, so that no choice is ever nearly ruled out. Without it, they
    are not bounded."""
    unseen: bool = True
    """Whether a genome whose network has been asked for before is written again, up to 20 times,
    and then drawn at random. The controller learns from each genome that it wrote, also from those
    whose results are already known, and from no other."""
    reward: dict[str, float] | None = None
    """The reward for several objectives: the product of the objectives named, each raised to the
    power given, such as `{accuracy: 1, latency_ms: -0.07}`. Powers are above 0 if more is better,
    below 0 if less is. Without it, the reward is the rank within the generation, by front and
    crowding distance."""

    @model_validator(mode="before")
    @classmethod
    def _slower_where_it_learns_from_fewer(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("unseen") is False:
            return {"lr": 0.015, "entropy": 0.3, **values}
        return values


class Policy(nn.Module):
    """An LSTM that chooses gene after gene, and reads the choice before (Zoph and Le, 2017).

    Each gene has its own output layer, and an embedding of its choices, which the next gene reads.
    """

    def __init__(
        self, choices: Sequence[int], units: int, temperature: float, tanh_constant: float | None
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.tanh_constant = tanh_constant
        self.start = nn.Parameter(torch.zeros(units))
        self.cell = nn.LSTMCell(units, units)
        self.heads = nn.ModuleList(nn.Linear(units, count) for count in choices)
        self.embeddings = nn.ModuleList(nn.Embedding(count, units) for count in choices)

    def forward(self, n: int, choose: Any) -> tuple[Tensor, list[Tensor]]:
        """Writes n genomes.

        Args:
            choose: takes the gene's number and the log-probabilities of its choices, (n, choices),
                and returns the choices, (n,).

        Returns:
            The log-probability of each genome, (n,), and for each gene the log-probabilities of
            its choices, (n, choices).
        """
        read = self.start.expand(n, -1)
        hidden: tuple[Tensor, Tensor] | None = None
        total = torch.zeros(n, dtype=read.dtype)
        steps = []
        for gene, (head, embedding) in enumerate(zip(self.heads, self.embeddings, strict=True)):
            hidden = self.cell(read, hidden)
            logits = head(hidden[0]) / self.temperature
            if self.tanh_constant is not None:
                logits = self.tanh_constant * torch.tanh(logits)
            logs = logits.log_softmax(dim=1)
            chosen = choose(gene, logs)
            total = total + logs.gather(1, chosen[:, None])[:, 0]
            read = embedding(chosen)
            steps.append(logs)
        return total, steps


class Controller(Generational):
    """An LSTM writes genomes gene by gene, and REINFORCE makes those more likely whose reward is
    above the moving average (Zoph and Le, 2017; Pham et al., 2018).

    The gradient is that of sum_t log pi(a_t | s_t) (R - b), b the moving average, with a bonus for
    entropy. Unlike in the papers, R - b is divided by its moving root mean square, so that `lr`
    means the same whatever the unit of the rewards. The mean is over all genomes that the policy
    wrote for the generation: with `unseen` also over those that were turned down, since their
    rewards are known, and never over those drawn at random in their place.

    With one objective, R = -loss. With several, R is the rank within the generation, from 1 for the
    best to 0 for the last (so a generation of one teaches nothing), or their weighted product (Tan
    et al., 2019, eq. 2). There a value of 0 or less counts as its limit towards 0: R is 0 if more
    is better, and the highest so far if less is. An infeasible network gets less than the lowest
    reward so far, the less the larger its violation, and a failed one less than all of those.
    """

    Params = ControllerParams
    TRACES: ClassVar = {
        "probabilities": ("gene", "choice", "probability"),
        "controller": ("reward", "baseline", "entropy"),
    }

    def __init__(self, params: ControllerParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self._powers = _powers(params.reward, self.objectives)
        self._names = {goal.name for goal in self.objectives}
        self._names |= {bound.name for bound in self.constraints}
        with torch.random.fork_rng(devices=[]):
            # Only the CPU's generator is forked; `torch.manual_seed` would change those of GPUs.
            torch.default_generator.manual_seed(derive_seed(setting.seed, "controller"))
            # In double precision, processors differ by too little to change a draw.
            self.policy = Policy(
                self.space.choices, params.units, params.temperature, params.tanh_constant
            ).double()
        self.optimizer = Adam(self.policy.parameters(), lr=params.lr)
        self.baseline: float | None = None
        self.spread = 0.0  # the moving mean of (R - b)^2
        self.lowest: float | None = None  # of the rewards of feasible networks
        self.highest: float | None = None
        self.written: list[Genome] = []  # by the policy, for the generation that is out
        self.results: dict[str, Evaluation] = {}  # of all networks asked for, by key
        self._trace: dict[str, list[dict[str, Any]]] = {}

    def _propose(self) -> list[Candidate]:
        n = self.params.population
        self.written, asked = [], list[Genome]()
        for _ in range(TRIES + 1):
            genomes = self._write(n - len(asked))
            self.written += genomes
            asked += [each for each in genomes if self._is_new(each) or not self.params.unseen]
            if len(asked) == n:
                break
        rest = [Candidate(self._unseen()) for _ in range(n - len(asked))]
        return [*(Candidate(genome, origin="controller") for genome in asked), *rest]

    def _learn(self, evaluations: list[Evaluation]) -> None:
        for each in evaluations:
            values = {name: each.values[name] for name in self._names if name in each.values}
            key = self.space.key(each.candidate.genome)
            self.results[key] = Evaluation(each.candidate, values, each.status)
        written = [self.results[self.space.key(genome)] for genome in self.written]
        genes = torch.tensor([genome.genes for genome in self.written])
        rewards = self._rewards(written)
        advantages = torch.from_numpy(self._advantages(rewards))
        logs, steps = self.policy(len(written), lambda gene, _: genes[:, gene])
        entropies = torch.stack([-(each.exp() * each).sum(dim=1) for each in steps])
        loss = -(advantages * logs).mean() - self.params.entropy * entropies.mean(dim=1).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._note(rewards, steps, float(entropies.detach().mean()))

    def trace(self) -> dict[str, list[dict[str, Any]]]:
        """The trace of the last generation: the probability of each choice (a mean over genomes),
        the mean reward, the moving average, and the mean entropy of a gene, nats.
        """
        return self._trace

    @torch.no_grad()
    def _write(self, n: int) -> list[Genome]:
        """Draws n genomes from the policy."""
        drawn: list[Tensor] = []

        def draw(_: int, logs: Tensor) -> Tensor:
            below = logs.exp().cumsum(dim=1)
            at = torch.from_numpy(self.rng.random(n))[:, None] * below[:, -1:]
            drawn.append((at >= below).sum(dim=1).clamp(max=logs.shape[1] - 1))
            return drawn[-1]

        self.policy(n, draw)
        rows: list[list[int]] = torch.stack(drawn, dim=1).tolist()
        return [Genome(self.space.name, tuple(genes)) for genes in rows]

    def _rewards(self, evaluations: Sequence[Evaluation]) -> Array:
        """The rewards, (n,), finite; more is better."""
        tiers = [pareto.tier(evaluation, self.objectives) for evaluation in evaluations]
        rewards = np.zeros(len(evaluations))
        feasible = np.array(tiers) == pareto.FEASIBLE
        if feasible.any():
            worth = self._worth([e for e, ok in zip(evaluations, feasible, strict=True) if ok])
            rewards[feasible] = worth
            low, high = float(worth.min()), float(worth.max())
            self.lowest = low if self.lowest is None else min(low, self.lowest)
            self.highest = high if self.highest is None else max(high, self.highest)
        lowest, highest = self.lowest or 0.0, self.highest or 0.0
        span = (highest - lowest) or abs(highest) or 1.0
        for i in np.flatnonzero(~feasible).tolist():
            share = 1.5
            if tiers[i] == pareto.INFEASIBLE:  # from 0.5 up to 1
                share = 1 - 1 / (2 + violation(evaluations[i].values, self.constraints))
            rewards[i] = lowest - span * share
        return rewards

    def _worth(self, evaluations: Sequence[Evaluation]) -> Array:
        """The rewards of feasible networks, (n,)."""
        if self._powers is not None:
            values = np.array([[e.values[name] for name in self._powers] for e in evaluations])
            with np.errstate(all="ignore"):  # log 0, and products that overflow
                logs = np.log(np.maximum(values, 0.0)) * [*self._powers.values()]
                products = np.exp(logs.sum(axis=1))
            products[np.isnan(products)] = 0.0  # 0 times infinity
            finite = products[np.isfinite(products)].tolist()
            before = [] if self.highest is None else [self.highest]
            return np.asarray(np.minimum(products, max([*finite, *before], default=1.0)))
        if len(self.objectives) == 1:
            return -pareto.losses(evaluations, self.objectives)[:, 0]
        ranks = pareto.preference(evaluations, self.objectives)
        return 1.0 - ranks / max(int(ranks.max()), 1)

    def _advantages(self, rewards: Array) -> Array:
        """Divides (R - b) by its moving root mean square, and updates both averages.

        Means are taken of differences, which are exactly 0 if all rewards are equal: divided by the
        root mean square, a rounding error would become as large as any real difference.
        """
        first, decay = self.baseline is None, self.params.baseline_decay
        before = float(rewards[0]) if self.baseline is None else self.baseline
        gaps = rewards - before
        gap = float(gaps.mean())
        advantages = gaps - gap if first else gaps
        square = float((advantages**2).mean())
        self.spread = square if first else decay * self.spread + (1 - decay) * square
        self.baseline = before + (gap if first else (1 - decay) * gap)
        return np.asarray(advantages / (self.spread**0.5 or 1.0))

    def _note(self, rewards: Array, steps: Sequence[Tensor], entropy: float) -> None:
        rows = [
            {"gene": gene.name, "choice": choice, "probability": round(p, 6)}
            for gene, logs in zip(self.space.genes, steps, strict=True)
            for choice, p in zip(
                gene.choices, logs.detach().exp().mean(dim=0).tolist(), strict=True
            )
        ]
        assert self.baseline is not None
        numbers = {"reward": float(rewards.mean()), "baseline": self.baseline, "entropy": entropy}
        row = {name: round(value, 6) for name, value in numbers.items()}
        self._trace = {"probabilities": rows, "controller": [row]}

    def _state(self) -> State:
        optimizer = self.optimizer.state_dict()["state"]
        return {
            "policy": {name: t.clone() for name, t in self.policy.state_dict().items()},
            "optimizer": {
                str(number): {name: t.clone() for name, t in slots.items()}
                for number, slots in optimizer.items()
            },
            "baseline": self.baseline,
            "spread": self.spread,
            "least": self.lowest,
            "most": self.highest,
            "results": {
                key: [list(each.candidate.genome.genes), str(each.status), dict(each.values)]
                for key, each in self.results.items()
            },
        }

    def _restore(self, state: State) -> None:
        if "results" not in state:
            raise UserError(
                "the run was begun by a version of evonas whose controller also learned from "
                "genomes that it had not written",
                hint="finish it with that version, or start a new run",
                key="strategy",
            )
        self.results = {
            key: Evaluation(Candidate(self.space.genome(genes)), values, Status(status))
            for key, (genes, status, values) in state["results"].items()
        }
        self.policy.load_state_dict(state["policy"])
        slots = {
            int(number): {name: t.clone() for name, t in each.items()}
            for number, each in state["optimizer"].items()
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.baseline, self.spread = state["baseline"], state["spread"]
        self.lowest, self.highest = state["least"], state["most"]


def _powers(
    reward: dict[str, float] | None, objectives: Sequence[Objective]
) -> dict[str, float] | None:
    if reward is None:
        return None
    goals = {objective.name: objective.goal for objective in objectives}
    for name, power in reward.items():
        key = f"strategy.reward.{name}"
        if name not in goals:
            raise UserError("is no objective", hint=f"allowed: {', '.join(goals)}", key=key)
        if power == 0 or (power > 0) != (goals[name] == "max"):
            side = "above" if goals[name] == "max" else "below"
            problem = f"is {power:g}, but the goal of {name} is {goals[name]}"
            raise UserError(problem, hint=f"must be {side} 0", key=key)
    if not reward:
        raise UserError("is empty", hint="name objectives and their powers", key="strategy.reward")
    return dict(reward)
