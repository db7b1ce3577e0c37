"""Zero-cost proxies, against what their papers' formulas give by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evonas.core import Metric
from evonas.metrics import ZERO_COST
from evonas.networks import proxies
from evonas.networks.decode import decode
from evonas.networks.proxies import PROXIES, measured, undefined
from genomes import NASBench201

SPACE = NASBench201()
NOTHING = SPACE.genome([0] * 6)
LABELS = torch.tensor([0, 1])


def linear(weights: list[list[float]], bias: bool = False) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights), bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
    return layer


def small(genome: object = None) -> nn.Module:
    chosen = SPACE.parse("3-3-2-4-1-3") if genome is None else genome
    return decode(SPACE, chosen, in_channels=1, channels=4, cells=1)  # type: ignore[arg-type]


def images(n: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def labels(n: int = 16) -> Tensor:
    return torch.arange(n) % 10


def all_of(build: Callable[[], nn.Module], **changed: object) -> dict[str, float]:
    given = {"names": list(PROXIES), "images": images(), "labels": labels(), "seed": 1}
    return measured(build, **{**given, **changed})  # type: ignore[arg-type]


def test_every_proxy_is_a_metric_and_says_when_it_is_undefined() -> None:
    assert [metric.name for metric in ZERO_COST] == list(PROXIES) == list(proxies.UNDEFINED)
    assert all(metric.goal == "max" and metric.on_demand for metric in ZERO_COST)
    assert not Metric("mine").on_demand


def test_nwot_is_the_log_determinant_of_the_relus_that_images_share() -> None:
    # Of three ReLUs, the images disagree about the second: K = [[3, 2], [2, 3]], |K| = 5.
    network = nn.Sequential(linear([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), nn.ReLU(), nn.Linear(3, 2))
    inputs = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    assert proxies.nwot(network, inputs, LABELS) == pytest.approx(math.log(5))


@pytest.mark.parametrize(
    "rectify",
    [
        torch.relu,
        functional.relu,
        functional.relu6,
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.LeakyReLU(),
        lambda x: x.clone().relu_(),
    ],
)
def test_nwot_counts_relus_of_modules_and_functions_alike(
    rectify: Callable[[Tensor], Tensor],
) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rectify(rectify(x) - 0.5)

    # The second layer's codes are those of x > 0.5: K = [[3, 2], [2, 3]] + [[3, 0], [0, 3]].
    inputs = torch.tensor([[1.0, 1.0, 0.2], [0.1, -1.0, 1.0]])
    assert proxies.nwot(Two(), inputs, LABELS) == pytest.approx(math.log(6 * 6 - 2 * 2))


def test_jacov_is_of_the_eigenvalues_of_the_correlation_of_gradients() -> None:
    class Squares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x / 2).flatten(1)  # the gradient of an image is the image

    inputs = torch.tensor([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]])  # their correlation is 1/2
    expected = -sum(math.log(s + 1e-5) + 1 / (s + 1e-5) for s in (0.5, 1.5))
    assert proxies.jacov(Squares(), inputs, LABELS) == pytest.approx(expected)


def test_snip_and_grad_norm_are_of_the_gradient_of_the_cross_entropy() -> None:
    # Both logits are 0, so the softmax is a half each: the gradient of a row is (1/2 - y) x.
    network = linear([[2.0, -1.0], [0.0, 0.0]], bias=True)
    nn.init.zeros_(network.bias)
    inputs = torch.tensor([[3.0, 6.0]])
    expected = 2.0 * 1.5 + 1.0 * 3.0
    assert proxies.snip(network, inputs, torch.tensor([0])) == pytest.approx(expected)
    norm = math.hypot(1.5, 3.0, 1.5, 3.0)
    assert proxies.grad_norm(network, inputs, torch.tensor([0])) == pytest.approx(norm)


def test_grad_norm_adds_the_norms_of_the_layers() -> None:
    network = nn.Sequential(linear([[1.0]]), linear([[1.0], [1.0]]))
    inputs, one = torch.tensor([[1.0]]), torch.tensor([0])
    # dL/dlogits = (-1/2, 1/2), which cancel on their way to the first layer.
    assert proxies.grad_norm(network, inputs, one) == pytest.approx(math.sqrt(0.5) + 0.0)


def test_synflow_is_conserved_from_layer_to_layer() -> None:
    # Through |weights|, ones become 1 + 2 = 3 and then 3 * 4 = 12; each of two layers has all 12.
    first, last = linear([[1.0, -2.0]], bias=True), linear([[-4.0]], bias=True)
    assert proxies.synflow(
        nn.Sequential(first, nn.ReLU(), last), torch.zeros(5, 2), LABELS
    ) == pytest.approx(math.log(2 * 12))


def test_synflow_sees_no_batch_norm_at_the_beginning() -> None:
    with_norm = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Flatten())
    without = nn.Sequential(with_norm[0], nn.Flatten())
    inputs = torch.zeros(2, 1, 2, 2)
    a, b = (proxies.synflow(each, inputs, LABELS) for each in (with_norm, without))
    assert a == pytest.approx(b, abs=1e-5)


def test_zen_is_the_change_of_the_features_of_a_linear_network() -> None:
    # f(x) = w x, so the mean change is 0.01 |w| E|e|, and E|e| is near the root of 1024.
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 1, 1)
    network = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    score = proxies.zen(network, torch.zeros(64, 1, 32, 32), LABELS)
    assert score == pytest.approx(math.log(0.01 * abs(convolution.weight.item()) * 32), abs=0.01)


def test_zen_makes_up_for_what_batch_norms_divide_by() -> None:
    inputs = torch.zeros(64, 1, 32, 32)
    bare = nn.Sequential(nn.Conv2d(1, 1, 1))
    normed = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    scores = []
    for network in (bare, normed):
        torch.manual_seed(0)
        scores.append(proxies.zen(network, inputs, LABELS))
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


def test_proxies_depend_on_nothing_but_the_seed_and_the_images() -> None:
    values = all_of(small)
    before = torch.get_rng_state()
    assert all_of(small) == values
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: all_of(small, names=[name])[name] for name in PROXIES} == values
    assert all(value != values[name] for name, value in all_of(small, seed=2).items())
    others = all_of(small, images=images(seed=1))
    differing = {name for name, value in others.items() if value != values[name]}
    assert differing == {"nwot", "jacov", "snip", "grad_norm"}, "the others look at no images"


@pytest.mark.parametrize("name", PROXIES)
def test_a_network_without_a_path_has_no_more_than_others(name: str) -> None:
    dead = all_of(lambda: small(NOTHING), names=[name])
    assert not dead[name] > all_of(small, names=[name])[name]
    if name not in ("snip", "grad_norm"):
        assert undefined(dead).startswith(f"{name} is ")


def test_a_network_without_parameters_or_relus_is_told() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).tanh()[:, :10]

    values = all_of(Bare, names=["nwot", "snip", "grad_norm", "synflow"])
    assert not np.isfinite(list(values.values())).any()
    assert undefined(values) == "nwot is nan: it has no ReLUs, or two images pass the same ones"
    assert undefined({"nwot": 1.0, "val_error": math.nan}) == ""


def test_dropout_and_an_auxiliary_classifier_have_no_part() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = small()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            logits = self.dropout(self.main(x))
            return (logits, logits.exp()) if self.training else logits

    assert all_of(Auxiliary) == pytest.approx(all_of(small))


def test_an_exception_says_in_which_proxy_it_was_raised() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        all_of(Broken, names=["jacov"])
    assert raised.value.__notes__ == ["(in jacov)"]


@pytest.mark.parametrize("name", PROXIES)
def test_every_space_has_every_proxy(name: str) -> None:
    from evonas import registry

    for space_name in ("chain", "channels", "darts", "macro", "nasbench201"):
        params = registry.space(space_name).Params()
        space = registry.make_space(params)
        genome = space.canonical(space.sample(np.random.default_rng(0)))

        def build() -> nn.Module:
            return decode(space, genome, in_channels=1, classes=10)  # noqa: B023

        value = measured(build, [name], images(8), labels(8), 0)[name]
        assert math.isfinite(value), f"{name} of {space_name} is {value}"
