"""Exporting a network: plain PyTorch without evonas, or weights that describe themselves."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, FiniteFloat, PositiveInt
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from evonas import files, registry
from evonas.core import UserError
from evonas.data.dataset import split
from evonas.export.described import classes, described, example
from evonas.export.onnx_file import write_onnx
from evonas.export.pytorch import python
from evonas.jobs.choice import Choice, choose, settings_of
from evonas.loop import error_text
from evonas.networks.decode import decode
from evonas.records import checkpoint, tables
from evonas.training.weights import read_weights
from genomes import Genome, SearchSpace

ENDINGS = {"python": ".py", "torch": ".safetensors", "onnx": ".onnx"}
OTHER_NAMES = {"py": "python", "safetensors": "torch"}
ONNX = ("onnx", "onnxscript", "onnxruntime")  # the packages that write and check such a file


class _About(BaseModel):
    """The types of the metadata of weights that an export relies on."""

    genome: dict[str, Any]
    network: dict[str, Any]
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 32, 32)
    mean: list[FiniteFloat]
    std: list[FiniteFloat]


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network of a run.

    Attributes:
        about: the metadata of its weights: `genome`, `network` (the builder's arguments),
            `image_shape`, `mean`, `std`, `values`, `class_names` (`training.weights`); and
            `accuracy`, with the images on which it was measured, `accuracy_on`, if it is on record.
    """

    space: SearchSpace
    genome: Genome
    weights: Path
    about: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.space.key(self.genome)

    def build(self, *, fresh: bool = False) -> nn.Module:
        """Return the network, ready to use; with `fresh`, as it was before it was trained."""
        with torch.random.fork_rng(devices=[]):
            network = decode(self.space, self.genome, **self.about["network"])
        if not fresh:
            network.load_state_dict(read_weights(self.weights))
        return network.eval()


def trained(folder: Path, which: str | None = None) -> TrainedNetwork:
    """The network of a run, or of a full training, with its weights.

    Args:
        which: as `jobs.choice.choose` takes it.

    Raises:
        UserError: there is no such network, or its weights are not there.
    """
    choice = choose(folder, which)
    if choice.weights is None:
        raise UserError(
            f"{folder} has no weights of {choice.key}: a search keeps the weights of its front and "
            "of its winner; if it scores with shared weights, of its winner alone; if it trains "
            "nothing, none",
            hint="choose one of them with --genome, or train another with `evonas train`",
        )
    try:
        network = _read(choice, choice.weights)
        if "values" not in network.about:
            missing = _not_noted(folder, network.about["network"])
            network = replace(network, about={**missing, **network.about})
        network.build()  # whatever does not fit is found here
    except UserError:
        raise
    except Exception as error:  # safetensors, the space and torch may raise anything
        hint = "choose another network, or train it again with `evonas train`"
        problem = f"is damaged: {error_text(error)}"
        raise UserError(problem, hint=hint, key=str(choice.weights)) from None
    accuracy = _accuracy(folder, choice.weights, choice.key)
    return replace(network, about={**network.about, **accuracy})


def _read(choice: Choice, weights: Path) -> TrainedNetwork:
    with safe_open(weights, "pt") as file:
        about = json.loads(file.metadata()["evonas"])
    _About.model_validate(about)
    genome = Genome.from_json(about["genome"])  # in the spelling that was trained
    if genome.space != choice.space.name or choice.space.key(genome) != choice.key:
        raise ValueError(f"its network is {genome.text}, not {choice.key}")
    return TrainedNetwork(choice.space, choice.space.genome(genome.genes), weights, about)


def _not_noted(folder: Path, network: Mapping[str, Any]) -> dict[str, Any]:
    """Return what earlier versions did not note with weights, from the data if they are there."""
    labels = [str(label) for label in range(network["classes"])]
    shape = (network["in_channels"], 32, 32)
    unknown = {"image_shape": shape, "values": None, "class_names": labels}
    try:
        params = settings_of(folder).data
        assert params is not None  # it has been trained
        data, _ = split(registry.load("data", registry.name_of(params))(params), params)
    except UserError:
        return unknown
    known = {"values": list(data.values), "class_names": list(data.class_names)}
    return {**unknown, "image_shape": data.image_shape, **known}


def _accuracy(folder: Path, weights: Path, key: str) -> dict[str, Any]:
    """Return the accuracy that the tables of a folder have for these weights, if any."""
    part, row = "test", None
    result, front = folder / "result.csv", folder / "front.csv"
    if weights.parent == folder:
        row = tables.read(result).iloc[0] if result.exists() else None
    elif weights.stem == "winner":
        row = tables.winner(folder)
    elif front.exists():
        part, rows = "validation", tables.read(front, text=("key",))
        rows = rows[rows["key"] == key]
        row = None if rows.empty else rows.iloc[0]
    error = None if row is None else row.get("test_error" if part == "test" else "val_error")
    if error is None or not np.isfinite(error):
        return {}
    return {"accuracy": 1 - float(error), "accuracy_on": f"{part} images"}


def form_of(form: str | None, out: Path | None) -> str:
    """Return the format that a user means: by its name, or else by the ending of the file.

    Raises:
        UserError: the format is unknown.
    """
    if form is None:
        endings = {ending: name for name, ending in ENDINGS.items()}
        return endings.get(out.suffix.lower() if out else "", "python")
    plain = form.strip().lower().removeprefix(".")
    plain = OTHER_NAMES.get(plain, plain)
    if plain not in ENDINGS:
        raise UserError(registry.unknown("format", form, list(ENDINGS)), key="--format")
    return plain


def closing(network: TrainedNetwork, form: str, written: list[Path]) -> Iterator[str]:
    """Yield what a user should know of files that `export` has written."""
    yield from (f"wrote {file}" for file in written)
    yield from described(network.about)
    yield classes(network.about)
    if form == "python":
        yield f"to use it: from {written[0].stem} import predict; {example(network.about)}"
    else:
        place = {"onnx": "its metadata", "torch": "its metadata, under evonas"}[form]
        yield f"the file says so too, in {place}"


def export(network: TrainedNetwork, form: str, out: Path | None = None) -> list[Path]:
    """Write the files of a format and return them; without `out`, the network's key names them.

    `python` is one file of plain PyTorch, and beside it the weights that its class loads with
    torch alone. `torch` is the weights as safetensors, whose metadata say how to build the network
    and what images it takes. `onnx` takes images as they are in the data, as float32, and
    normalises them itself; it is checked with onnxruntime against torch's logits.

    Raises:
        UserError: the format is unknown, the file cannot be written or has another format's
            ending, the network cannot be written in the format, or onnx, onnxscript or onnxruntime
            is missing.
        SearchFailed: the ONNX file's logits differ from torch's.
    """
    form = form_of(form, out)
    # A module's name cannot have dashes.
    out = out or Path(files.short(network.key).replace("-", "_") + ENDINGS[form])
    if out.suffix.lower() != ENDINGS[form]:
        raise UserError(
            f"does not end in {ENDINGS[form]}, which {form} needs",
            hint="give a name that does, or another --format",
            key=f"--out {out}",
        )
    try:
        files.make_folder(out.parent, named=True)
        if form == "torch":
            about = {"evonas": json.dumps(network.about)}
            files.write_atomic(out, save(load_file(network.weights), about))
            return [out]
        if form == "onnx":
            missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
            if missing:
                problem = f"{', '.join(missing)} not installed"
                raise UserError(problem, hint="run `pip install evonas[onnx]`", key="--format onnx")
            write_onnx(network.build(), network.about, out)
            return [out]
        weights = out.with_suffix(".pt")
        files.write_atomic(out, python(network, weights.name))
        checkpoint.write(weights, network.build().state_dict())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return [out, weights]
