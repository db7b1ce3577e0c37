"""Exporting a network: plain PyTorch without evonas, or weights that describe themselves."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import pprint
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, FiniteFloat, PositiveInt
from safetensors import safe_open
from torch import Tensor, nn

from evonas import files, registry
from evonas.core import SearchFailed, UserError
from evonas.export.source import Source
from evonas.jobs.choice import Choice, choose
from evonas.loop import error_text
from evonas.networks.decode import decode
from evonas.records import checkpoint
from genomes import Genome, SearchSpace

ENDINGS = {"python": ".py", "torch": ".safetensors", "onnx": ".onnx"}
ONNX = ("onnx", "onnxscript", "onnxruntime")  # the packages that write and check such a file
TOLERANCE = 1e-4  # relative and absolute, of an ONNX file's logits against torch's


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
            `image_shape`, `mean`, `std`.
    """

    space: SearchSpace
    genome: Genome
    weights: Path
    about: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.space.key(self.genome)


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
        # Whatever does not fit is found here.
        built = decode(network.space, network.genome, **network.about["network"])
        built.load_state_dict(_state(network))
    except Exception as error:  # safetensors, the space and torch may raise anything
        hint = "choose another network, or train it again with `evonas train`"
        problem = f"is damaged: {error_text(error)}"
        raise UserError(problem, hint=hint, key=str(choice.weights)) from None
    return network


def _read(choice: Choice, weights: Path) -> TrainedNetwork:
    with safe_open(weights, "pt") as file:
        about = json.loads(file.metadata()["evonas"])
    _About.model_validate(about)
    genome = Genome.from_json(about["genome"])  # in the spelling that was trained
    if genome.space != choice.space.name or choice.space.key(genome) != choice.key:
        raise ValueError(f"its network is {genome.text}, not {choice.key}")
    return TrainedNetwork(choice.space, choice.space.genome(genome.genes), weights, about)


def export(network: TrainedNetwork, form: str, out: Path | None = None) -> list[Path]:
    """Write the files of a format and return them; without `out`, the network's key names them.

    `python` is one file of plain PyTorch, and beside it the weights that its class loads with
    torch alone. `torch` is the weights as safetensors, whose metadata say how to build the network
    and what images it takes. `onnx` takes images as they are in the data, as float32, and
    normalises them itself; it is checked with onnxruntime against torch's logits.

    Raises:
        UserError: the format is unknown, the file cannot be written or has another format's
            ending, the space's code cannot be written out, or onnx, onnxscript or onnxruntime is
            missing.
        SearchFailed: the ONNX file's logits differ from torch's.
    """
    if form not in ENDINGS:
        raise UserError(registry.unknown("format", form, list(ENDINGS)), key="--format")
    # A module's name cannot have dashes.
    out = out or Path(files.short(network.key).replace("-", "_") + ENDINGS[form])
    if out.suffix != ENDINGS[form]:
        raise UserError(
            f"does not end in {ENDINGS[form]}, which {form} needs",
            hint="give a name that does, or another --format",
            key=f"--out {out}",
        )
    try:
        files.make_folder(out.parent, named=True)
        if form == "torch":
            files.copy(network.weights, out)
            return [out]
        if form == "onnx":
            _onnx(network, out)
            return [out]
        weights = out.with_suffix(".pt")
        files.write_atomic(out, python(network, weights.name))
        checkpoint.write(weights, _state(network))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    return [out, weights]


def python(network: TrainedNetwork, weights: str) -> str:
    """Return one readable file: the network's parts, its genome's choices, and a class.

    Args:
        weights: the name of the file that its class loads by default.
    """
    space, about = network.space, network.about
    build = registry.blueprint_of(space).build
    assert build is not None  # it has been trained
    source = Source()
    source.imports |= dict.fromkeys(("import torch", "from pathlib import Path"))
    source.imports |= dict.fromkeys(("from torch import nn", "from torch import Tensor"))
    source.imports["from typing import Any"] = None
    source.add(build)
    live = space.live(network.genome)
    chosen = {
        gene.name: space.choice(network.genome, i) if live[i] else None
        for i, gene in enumerate(space.genes)
    }
    reserved = {"CHOICES", "SETTINGS", "MEAN", "STD", "WEIGHTS", "choose", "EvolvedNetwork"}
    for name in reserved & {*source.constants, *source.definitions}:
        raise UserError(
            f"{space.name} defines {name}, which the exported file reserves", hint="rename it"
        )
    if "Pick" in source.text():
        source.constants["Pick"] = "Pick = Any  # a function that chooses, here `choose`"
    params = sum(t.numel() for t in _parameters(network))
    return TEMPLATE.format(
        key=network.key,
        space=space.name,
        text=" ".join(space.describe(network.genome).split()),
        params=f"{params:,}",
        weights=weights,
        source=source.text(),
        choices=_written("CHOICES", chosen),
        settings=_written("SETTINGS", dict(about["network"])),
        mean=_written("MEAN", tuple(about["mean"])),
        std=_written("STD", tuple(about["std"])),
        build=build.__name__,
    )


TEMPLATE = '''"""Network {key} of the search space {space}, found by evonas.

{text}

{params} parameters. It needs only torch:

    network = EvolvedNetwork.load()  # the weights in {weights}, beside this file
    logits = network(normalised(images))  # images (n, channels, height, width), as in the data
"""

from __future__ import annotations

{source}


# The genome's choice for each gene; None is not part of the network.
{choices}
{settings}
# Mean and standard deviation of the training images, one number per channel.
{mean}
{std}
WEIGHTS = Path(__file__).with_suffix(".pt")


def choose(gene: str, candidates: dict[str, Any]) -> Any:
    """Return the candidate that the genome chose, built; None if it is left out."""
    choice = CHOICES[gene]
    if choice is None:
        return None
    candidate = candidates[choice]
    return candidate() if callable(candidate) else candidate


def normalised(images: Tensor) -> Tensor:
    """Return images as the network takes them."""
    mean, std = (torch.tensor(each, device=images.device).view(-1, 1, 1) for each in (MEAN, STD))
    return (images.float() - mean) / std


class EvolvedNetwork(nn.Module):
    """The network of the genome, with fresh weights."""

    def __init__(self) -> None:
        super().__init__()
        self.network = {build}(choose, **SETTINGS)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (n, classes), of normalised images."""
        return self.network(images)

    @classmethod
    def load(cls, weights: str | Path = WEIGHTS) -> EvolvedNetwork:
        """Return the network with trained weights, ready to use."""
        loaded = cls()
        loaded.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return loaded.eval()
'''


class _Normalising(nn.Module):
    """A network that normalises its images."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def _onnx(network: TrainedNetwork, out: Path) -> None:
    missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"{', '.join(missing)} not installed"
        raise UserError(problem, hint="run `pip install evonas[onnx]`", key="--format onnx")
    import onnxruntime

    about = network.about
    built = decode(network.space, network.genome, **about["network"])
    built.load_state_dict(_state(network))
    whole = _Normalising(built, about["mean"], about["std"]).eval()
    shape = about.get("image_shape", (about["network"]["in_channels"], 32, 32))
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about itself
        program = torch.onnx.export(
            whole,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            external_data=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (2, 5):
        images = 255 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = whole(images).numpy()
        [logits] = session.run(None, {"images": images.numpy()})
        if not np.allclose(logits, expected, rtol=TOLERANCE, atol=TOLERANCE):
            worst = float(np.abs(logits - expected).max())
            raise SearchFailed(f"the ONNX file's logits differ from torch's by up to {worst:.2g}")
    files.write_atomic(out, content)


def _state(network: TrainedNetwork) -> dict[str, Tensor]:
    with safe_open(network.weights, "pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}


def _parameters(network: TrainedNetwork) -> list[Tensor]:
    """Return the network's parameters, without batch norm's statistics."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return [t for name, t in _state(network).items() if not name.endswith(statistics)]


def _written(name: str, value: object) -> str:
    return f"{name} = {pprint.pformat(value, width=96, sort_dicts=False)}"
