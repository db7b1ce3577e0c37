"""A network as one readable file of plain PyTorch."""

from __future__ import annotations

import logging
import pprint
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evonas import registry
from evonas.core import UserError
from evonas.export.described import described, example
from evonas.export.images import as_images, checked, on_scale
from evonas.export.source import Source
from evonas.export.unfold import unfolded

if TYPE_CHECKING:
    from evonas.export.network import TrainedNetwork

log = logging.getLogger("evonas")


def python(network: TrainedNetwork, weights: str) -> str:
    """Return one readable file: the network's layers, a class that holds them, and `predict`.

    A network that cannot be written as its layers is written as its space's function, with the
    genome's choices.

    Args:
        weights: the name of the file that its class loads by default.
    """
    made = network.build()
    params = sum(parameter.numel() for parameter in made.parameters())
    source = _source()
    try:
        statements, choices = unfolded(lambda: network.build(fresh=True), source), ""
        text = _file(network, weights, params, source, statements, choices)
        _check(text, made, network.about["image_shape"])
    except Exception:  # whatever a user's module does: its function works as it stands
        log.debug("not written as layers", exc_info=True)
        source = _source()
        statements, choices = _by_choices(network, source)
        text = _file(network, weights, params, source, statements, choices)
    return text


def _source() -> Source:
    """Return the definitions that every exported file has."""
    source = Source()
    names = ("functools import cache", "pathlib import Path", "typing import Any")
    source.imports |= dict.fromkeys(("import torch", *(f"from {name}" for name in names)))
    source.imports |= dict.fromkeys(("from torch import nn", "from torch import Tensor"))
    return source


def _by_choices(network: TrainedNetwork, source: Source) -> tuple[str, str]:
    """Return the statement that makes a network from its space's function, and what it needs."""
    space = network.space
    build = registry.blueprint_of(space).build
    assert build is not None  # it has been trained
    source.add(build)
    live = space.live(network.genome)
    chosen = {
        gene.name: space.choice(network.genome, i) if live[i] else None
        for i, gene in enumerate(space.genes)
    }
    if "Pick" in source.text():
        source.constants["Pick"] = "Pick = Any  # a function that chooses, here `choose`"
    choices = CHOICES.format(
        choices=_written("CHOICES", chosen),
        settings=_written("SETTINGS", dict(network.about["network"])),
    )
    return f"        self.network = {build.__name__}(choose, **SETTINGS)", choices


def _file(
    network: TrainedNetwork,
    weights: str,
    params: int,
    source: Source,
    statements: str,
    choices: str,
) -> str:
    space, about = network.space, network.about
    images = Source()
    for function in (as_images, on_scale, checked):
        images.add(function)
    reserved = RESERVED | images.constants.keys() | images.definitions.keys()
    for name in reserved & {*source.constants, *source.definitions}:
        raise UserError(
            f"{space.name} defines {name}, which the exported file reserves", hint="rename it"
        )
    source.imports |= images.imports
    return TEMPLATE.format(
        key=network.key,
        space=space.name,
        text=textwrap.fill(space.describe(network.genome), 96, break_long_words=False),
        params=f"{params:,}",
        facts="\n".join(textwrap.fill(line, 96) for line in described(about)),
        weights=weights,
        module=Path(weights).stem,
        example=example(about),
        source=source.text(),
        constants="\n".join(images.constants.values()),
        functions="\n\n\n".join(images.definitions.values()),
        choices=choices,
        statements=statements,
        classes=_written("CLASSES", tuple(about["class_names"])),
        shape=_written("IMAGE_SHAPE", tuple(about["image_shape"])),
        values=_written("VALUES", about["values"] and tuple(about["values"])),
        mean=_written("MEAN", tuple(about["mean"])),
        std=_written("STD", tuple(about["std"])),
    )


def _check(text: str, made: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raises AssertionError unless the class of an exported file computes what a network does."""
    names: dict[str, Any] = {"__name__": "exported", "__file__": "exported.py"}
    exec(compile(text, "exported.py", "exec"), names)
    other = names["EvolvedNetwork"]().network
    other.load_state_dict(made.state_dict())
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        assert torch.equal(other.eval()(images), made(images))


RESERVED = {
    *("CHOICES", "SETTINGS", "CLASSES", "IMAGE_SHAPE", "VALUES", "MEAN", "STD", "WEIGHTS"),
    *("choose", "normalised", "predict", "trained", "EvolvedNetwork"),
}

CHOICES = '''
# The genome's choice for each gene; None is not part of the network.
{choices}
{settings}


def choose(gene: str, candidates: Any) -> Any:
    """Return the candidate that the genome chose, built; None if it is left out."""
    choice = CHOICES[gene]
    if choice is None:
        return None
    if not isinstance(candidates, dict):
        candidates = {{str(getattr(each, "__name__", each)): each for each in candidates}}
    candidate = candidates[choice]
    return candidate() if callable(candidate) else candidate

'''

TEMPLATE = '''"""Network {key} of the search space {space}, found by evonas.

{text}

{params} parameters.
{facts}

It needs torch, and Pillow to read pictures:

    from {module} import predict
    {example}  # the name of the class; pictures by path, images in arrays
"""

from __future__ import annotations

{source}

{choices}
{classes}
{shape}  # channels, height, width
{values}  # the values of the images in the data, from and to
# Mean and standard deviation of the training images, one number per channel.
{mean}
{std}
WEIGHTS = Path(__file__).with_suffix(".pt")
{constants}


class EvolvedNetwork(nn.Module):
    """The network, with fresh weights."""

    def __init__(self) -> None:
        super().__init__()
{statements}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (n, classes), of normalised images."""
        return self.network(images)

    @classmethod
    def load(cls, weights: str | Path = WEIGHTS) -> EvolvedNetwork:
        """Return the network with trained weights, ready to use."""
        loaded = cls()
        loaded.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return loaded.eval()


@cache
def trained() -> EvolvedNetwork:
    """Return the network with the weights beside this file, which are read once."""
    return EvolvedNetwork.load()


def predict(images: Any) -> Any:
    """Return the name of the class of one image, or a list of names of several.

    Args:
        images: whatever `as_images` takes, such as the path of a picture, or an array.
    """
    batch = as_images(images, IMAGE_SHAPE, VALUES)
    with torch.no_grad():
        logits = trained()(normalised(batch if batch.ndim == 4 else batch[None]))
    names = [CLASSES[number] for number in logits.argmax(dim=1).tolist()]
    return names if batch.ndim == 4 else names[0]


def normalised(images: Tensor) -> Tensor:
    """Return images, (n, *IMAGE_SHAPE), as the network takes them.

    Images with values from 0 to 1 or 0 to 255 are put on the scale of the data first.
    """
    mean, std = (torch.tensor(each, device=images.device).view(-1, 1, 1) for each in (MEAN, STD))
    return (checked(on_scale(images, VALUES), VALUES) - mean) / std


{functions}
'''


def _written(name: str, value: object) -> str:
    return f"{name} = {pprint.pformat(value, width=96, sort_dicts=False)}"
