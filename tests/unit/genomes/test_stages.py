"""Networks in stages: their text, their sizes, where they are halved, and the named ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from evonas.cli import app
from evonas.networks.decode import decode
from evonas.networks.profile import profile
from genomes import Genome, OtherSpace, Stages, library

SPACE = Stages()
TEXT = "stem8/2 | conv5 x2 w1 | residual3 x1 w1.5 se | inverted7 x3 w4 e6 se hswish /2 | head4"
RESOLUTIONS = st.integers(8, 96)


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def weights(space: Stages, genome: Genome, in_channels: int = 3, classes: int = 10) -> int:
    return sum(layer.weights for layer in space.layers(genome, in_channels, classes))


def test_the_text_is_what_a_person_would_write() -> None:
    genome = SPACE.parse(TEXT)
    assert SPACE.describe(genome) == TEXT
    named = SPACE.named(genome)
    assert "stem=8, strides=2/1/1/2, head=4, 1.block=conv, 1.depth=2, 1.width=1, 1.k" in named
    assert SPACE.parse(named) == genome
    shuffled = TEXT.replace("x3 w4 e6 se hswish /2", "/2 hswish e6 se w4 x3").replace(" | ", "|")
    assert SPACE.parse(shuffled) == genome


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("conv5", "konv5"), "1.block is konv, and stages/v1 has conv, residual"),
        (("conv5", "conv4"), "1.kernel is 4, and stages/v1 has 3, 5, 7"),
        (("x2 ", ""), "stage 1 of .* has no depth; write stem8 | conv3"),
        (("x2", "2x"), "'2x' is no part of a genome of stages/v1; write stem8"),
        ((" | head4", ""), "has stages: 2; stages/v1 has: 3"),
        (("/2", "/4"), "strides is 4/1/1/2, and stages/v1 has 1/1/2/2"),
        (("stem8", "stem9"), "stem is 9"),
        (("| residual3 x1 w1.5 se", "| |"), "has stages: 4; stages/v1 has: 3"),
    ],
)
def test_mistakes_in_a_text_are_told(change: tuple[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        SPACE.parse(TEXT.replace(*change, 1))
    assert not isinstance(caught.value, OtherSpace)


def test_only_inverted_residuals_have_an_expansion() -> None:
    one, two = (TEXT.replace("conv5 x2 w1", f"conv5 x2 w1 e{e}") for e in (3, 6))
    assert SPACE.parse(one) != SPACE.parse(two)
    assert len({SPACE.key(SPACE.parse(text)) for text in (one, two, TEXT)}) == 1
    assert SPACE.describe(SPACE.canonical(SPACE.parse(two))) == TEXT
    assert np.array_equal(SPACE.features(SPACE.parse(one)), SPACE.features(SPACE.parse(two)))
    four = SPACE.parse(TEXT.replace("e6", "e4"))
    assert SPACE.key(four) != SPACE.key(SPACE.parse(TEXT))


def test_widths_that_come_to_the_same_channels_are_the_same_network() -> None:
    space = Stages(1, 8, [2, 16], widths=[1, 1.2, 2])
    genomes = [space.parse(f"stem2 | conv3 x1 w{width} /2 | head0") for width in ("1", "1.2", "2")]
    keys = [space.key(genome) for genome in genomes]
    assert keys[0] == keys[1] != keys[2]
    wide = [space.parse(f"stem16 | conv3 x1 w{width} /2 | head0") for width in ("1", "1.2")]
    assert space.key(wide[0]) != space.key(wide[1])


def mobilenet_v2(stem: int, widths: list[int], depths: list[int], classes: int) -> int:
    """The params of the 3x3 stem, the inverted residuals (e = 6), and a 1x1 of four times the last
    width; each convolution with the two of its batch norm for each channel (Sandler et al., 2018,
    table 1).
    """
    total, before = 27 * stem + 2 * stem, stem
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            within = 6 * before
            total += before * within + 2 * within  # widen
            total += 9 * within + 2 * within  # depthwise
            total += within * width + 2 * width  # project
            before = width
    total += before * 4 * before + 2 * 4 * before
    return total + (4 * before + 1) * classes


@pytest.mark.parametrize(
    ("stem", "widths"), [(16, [24, 32, 64]), (8, [12, 16, 32]), (32, [48, 64, 128])]
)
def test_a_mobilenet_v2_has_the_params_of_the_closed_form(stem: int, widths: list[int]) -> None:
    genome = library.read(SPACE, f"mobilenet_v2@{stem}")
    network = decode(SPACE, genome, classes=100)
    expected = mobilenet_v2(stem, widths, [2, 3, 4], 100)
    assert profile(network, (3, 32, 32)).params == expected


def test_a_resnet8_and_a_vgg6_have_the_params_of_the_closed_form() -> None:
    widths, before = (16, 32, 64), 16
    residual = vgg = 27 * 16 + 2 * 16
    for number, width in enumerate(widths):
        residual += 9 * before * width + 9 * width * width + 4 * width
        residual += before * width + 2 * width if before != width else 0
        vgg += 9 * before * width + 2 * width + (9 * width * width + 2 * width) * (number > 0)
        before = width
    for name, expected in (("resnet8", residual), ("vgg6", vgg)):
        network = decode(SPACE, library.read(SPACE, name))
        assert profile(network, (3, 32, 32)).params == expected + 65 * 10


@settings(deadline=None, max_examples=40)
@given(data=st.data(), resolution=RESOLUTIONS)
def test_the_layers_add_up_to_params_and_flops(data: st.DataObject, resolution: int) -> None:
    space = Stages(resolution=resolution)
    genome = space.genome(data.draw(st.integers(0, count - 1)) for count in space.choices)
    channels, classes = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 200))
    layers = list(space.layers(genome, channels, classes))
    with torch.device("meta"):
        network = decode(space, genome, in_channels=channels, classes=classes)
    assert sum(p.numel() for p in network.parameters()) == sum(each.weights for each in layers)
    if sum(each.work for each in layers) < 2e7:
        network = decode(space, genome, in_channels=channels, classes=classes)
        found = profile(network, (channels, resolution, resolution))
        # Biases, of the classifier and of squeeze-and-excitation, are counted there alone.
        assert 0 <= found.flops - sum(each.work for each in layers) < 0.05 * found.flops + 300


@settings(deadline=None, max_examples=25)
@given(data=st.data(), resolution=RESOLUTIONS)
def test_networks_take_images_of_all_shapes(data: st.DataObject, resolution: int) -> None:
    space = Stages(resolution=resolution, stem=[4, 6], widths=[1, 2], depths=[1, 2])
    genome = space.genome(data.draw(st.integers(0, count - 1)) for count in space.choices)
    channels, classes = data.draw(st.sampled_from([1, 3])), data.draw(st.integers(2, 200))
    longer = data.draw(st.integers(resolution, 2 * resolution))
    network = decode(space, genome, in_channels=channels, classes=classes).eval()
    assert network(torch.zeros(1, channels, resolution, longer)).shape == (1, classes)


@given(resolution=st.integers(2, 1024), stages=st.integers(1, 5))
def test_two_to_eight_pixels_are_left_where_there_are_layers_to_halve_them(
    resolution: int, stages: int
) -> None:
    sides = []
    for strides in Stages(stages, resolution).strides:
        side = resolution
        for stride in strides:
            side = -(-side // stride)
        sides.append(side)
    assert min(sides) >= 2
    if max(sides) > 8:  # then all layers halve it
        stem = 4 if resolution >= 64 else 2
        assert Stages(stages, resolution).strides == [(stem, *[2] * stages)]


def test_samples_spread_over_two_decades_of_size() -> None:
    rng = np.random.default_rng(0)
    sizes = np.log10([weights(SPACE, SPACE.sample(rng)) for _ in range(2000)])
    low, high = np.percentile(sizes, [5, 95])
    assert high - low > 2
    shares = np.histogram(sizes, bins=np.arange(3, 8.5, 0.5))[0] / len(sizes)
    assert shares.max() < 0.35  # a bin is half a decade


def test_a_name_can_have_a_size_and_fits_the_space() -> None:
    assert SPACE.describe(library.read(SPACE, "vgg6@12")).startswith("stem12 | conv3 x1 w1 | ")
    small = Stages(resolution=96, kernels=[5, 7], widths=[1, 2.5])
    text = small.describe(library.read(small, "vgg6"))
    assert text == "stem16/2 | conv5 x1 w1 /2 | conv5 x2 w2.5 /2 | conv5 x2 w2.5 /2 | head0"
    for space, name, told in (
        (SPACE, "vgg6@9", r"vgg6@9: must have one of 4, 6, .* after the @"),
        (Stages(2), "vgg6", "vgg6: it has 3 stages; this space has 2"),
        (Stages(blocks=["conv"]), "resnet8", "resnet8: it needs residual among the choices"),
        (library.load("gdas")[0], "gdas@4", "gdas@4: a genome of darts/v1 has no size"),
    ):
        with pytest.raises(ValueError, match=told):
            library.read(space, name)
    shown = command("show", "mobilenet_v2@8")
    assert (shown.exit_code, "stem8 | inverted3 x2 w1.5 e6" in shown.output) == (0, True)
    refused = command("show", "mobilenet_v2@9")
    assert refused.exit_code == 2
    assert "mobilenet_v2@9: must have one of" in refused.stderr


SEARCH: dict[str, Any] = {
    "name": "staged",
    "space": {"name": "stages", "stem": [4, 6], "depths": [1], "widths": [1, 2, 4]},
    "data": {"name": "digits", "subset": 300},
    "strategy": {"name": "nsga2", "population": 4, "seeds": ["vgg6@4", "ds_cnn@4"]},
    "evaluator": {"name": "train"},
    "budget": {"epochs": 1},
    "objectives": [{"name": "val_error"}, {"name": "params"}],
    "constraints": [{"name": "params", "max": 20_000}],
    "stop": {"generations": 1},
    "finalists": {"top": 1, "seeds": 2},
    "parallel": {"workers": 1},
}


def test_a_search_fits_the_space_to_the_images_and_keeps_the_best_seed(tmp_path: Path) -> None:
    path, run = tmp_path / "staged.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(SEARCH))
    done = command("run", path, "--out", run)
    assert done.exit_code == 0, done.output
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["space"]["resolution"] == 8
    assert written["objectives"][1]["reference"] == 20_000  # the space has no largest network
    seeds = pd.read_csv(run / "evaluations.csv").query("origin == 'seed'")
    best = seeds.sort_values(["val_error", "params"])["key"].iloc[0]
    finalists = pd.read_csv(run / "finalists.csv")
    assert best in set(finalists["key"])
    assert set(finalists.loc[finalists["key"] == best, "origin"]) == {"seed"}
    shown = command("show", run).output
    seed_won = finalists.loc[finalists["winner"], "origin"].iloc[0] == "seed"
    told = "it is one of the seeds" if seed_won else "than that of the best seed"
    assert told in " ".join(shown.split())
    trained = command("train", "vgg6@4", "--experiment", path, "--epochs", "1", "--out", run / "t")
    assert trained.exit_code == 0, trained.output
    assert yaml.safe_load((run / "t" / "training.yaml").read_text())["space"]["resolution"] == 8
