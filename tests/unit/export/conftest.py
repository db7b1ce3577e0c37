"""Networks to take away, with the weights of no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from evonas import registry
from evonas.data.dataset import DataParams, Images, split
from evonas.export.network import TrainedNetwork
from evonas.networks.decode import decode
from evonas.own import OwnSpace
from evonas.training.weights import save_weights
from genomes import SearchSpace

Make = Callable[..., TrainedNetwork]


class Source:
    """A data set in memory."""

    flippable = False
    statistics = None

    def __init__(self, images: Any, class_names: Any = ()) -> None:
        self.images, self.class_names = images, class_names

    def check(self) -> None:
        pass

    def load(self) -> tuple[Images, None]:
        return Images(self.images, np.arange(len(self.images)) % 2), None


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a network of a space: the name of a built-in one, or a function."""

    def made(
        space: Any,
        *,
        genes: tuple[int, ...] = (),
        shape: tuple[int, int, int] = (1, 8, 8),
        values: tuple[float, float] = (0, 255),
        class_names: tuple[str, ...] = (),
        **settings: Any,
    ) -> TrainedNetwork:
        made_space: SearchSpace
        if callable(space):
            made_space = OwnSpace(space, settings)
            arguments = made_space.settings
        else:
            params = registry.space(space).Params(name=space, **settings)
            made_space = registry.make_space(params)
            arguments = params.model_dump(exclude={"name"})
        rng = np.random.default_rng(1)
        genome = made_space.genome(genes) if genes else made_space.sample(rng)
        genome = made_space.canonical(genome)
        images = np.linspace(*values, 20 * int(np.prod(shape))).reshape(20, *shape)
        source = Source(images.astype("uint8" if values == (0, 255) else "float32"), class_names)
        data, _ = split(source, DataParams())
        network = decode(made_space, genome, in_channels=shape[0], classes=2, **arguments)
        path = tmp_path / "weights.safetensors"
        save_weights(network, genome, arguments, data, path)
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["evonas"])
        return TrainedNetwork(made_space, genome, path, about)

    return made
