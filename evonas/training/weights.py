"""Files of weights, which also say how to build the network and how to feed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from evonas import files
from evonas.data.dataset import DataSet
from genomes import Genome


def save_weights(
    network: nn.Module, genome: Genome, settings: Mapping[str, Any], data: DataSet, path: Path
) -> None:
    """Writes a network's weights, whole or not at all; no pickle.

    Args:
        settings: the arguments of the network's builder, except those that the data determine.

    Raises:
        SearchFailed: the file cannot be written, for example because the disk is full.
    """
    weights = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    about = {
        "genome": genome.to_json(),
        "network": {
            "in_channels": data.image_shape[0],
            "classes": data.classes,
            **settings,
        },
        "image_shape": data.image_shape,
        "mean": data.mean,  # for each channel of the images as stored
        "std": data.std,
    }
    metadata = {"evonas": json.dumps(about)}  # one entry, since several have no fixed order
    with files.failing():  # a full disk is not the network's fault
        files.write_atomic(path, save(weights, metadata))
