"""Files of weights, which also say how to build the network and how to feed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from evonas import files
from evonas.data.dataset import DataSet
from genomes import Genome

METADATA = "evonas"  # one entry, since several have no fixed order


def save_weights(
    network: nn.Module, genome: Genome, settings: Mapping[str, Any], data: DataSet, path: Path
) -> None:
    """Writes a network's weights, whole or not at all; no pickle.

    Args:
        settings: the arguments of the network's builder, except those that the data determine.

    Raises:
        SearchFailed: the file cannot be written, for example because the disk is full.
    """
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
        "values": data.values,  # of the images as stored, the lowest and the highest
        "class_names": data.class_names,
    }
    with files.failing():  # a full disk is not the network's fault
        write_weights(network, path, about)


def write_weights(
    network: nn.Module, path: Path, about: Mapping[str, Any] | None = None, *, sync: bool = False
) -> None:
    """Write the state of a network as safetensors, whole or not at all.

    A tensor that is in several places of the network, as in `[block] * 3`, is written once, under
    its first name; `tied` in the metadata gives the first name for each of the others.

    Args:
        about: further metadata.
        sync: whether the file also survives a power cut.
    """
    names: dict[int, str] = {}
    weights: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        first = names.setdefault(id(tensor), name)
        if first != name:
            tied[name] = first
            continue
        # Of views of one tensor, each is written as a tensor of its own.
        weights[name] = tensor.detach().cpu().contiguous()
    metadata = {**(about or {}), **({"tied": tied} if tied else {})}
    content = save(_apart(weights), {METADATA: json.dumps(metadata)} if metadata else None)
    files.write_atomic(path, content, sync=sync)


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, with a copy of each that lies in the memory of an earlier one."""
    taken: set[int] = set()
    apart = {}
    for name, tensor in weights.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return apart


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state of a network from its file; tied names share a tensor.

    Raises:
        OSError, SafetensorError, ValueError: the file cannot be read, or is damaged.
    """
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in sorted(file.keys())}
    return weights | {name: weights[first] for name, first in about.get("tied", {}).items()}
