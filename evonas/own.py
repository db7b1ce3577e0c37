"""Search spaces and data sets of the user's own: a function each, in a Python file of theirs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, create_model
from torch import nn

from evonas import plugins
from evonas.core import Blueprint, Params, UserError
from evonas.data.dataset import DataParams, Images, as_images, check_parts
from evonas.own_classes import OwnParams
from genomes import Gene, SearchSpace

Build = Callable[..., nn.Module]
ENDS = ("pick", "in_channels", "classes")  # what every space's function takes
FORM = "def NAME(pick, *, in_channels, classes, ...)"


class OwnSpaceParams(OwnParams):
    """Of a space of one's own: what its function takes besides `pick` and the data's ends."""


class OwnDataParams(OwnParams, DataParams):
    """Of a data set of one's own: what its function takes, and how it is split."""

    model_config = ConfigDict(extra="allow")
    flippable: bool = False
    """Whether an image that is mirrored left to right is still of its class."""


def space(build: Build) -> Build:
    """Marks a function as a search space: `build(pick, *, in_channels, classes, ...)`.

    Called with a gene's name and its candidates, `pick` gives the one that a genome chose, built
    where it is a class or a function without arguments, and as it is otherwise. Genes are found by
    calling the function, so which are picked must not depend on what was picked before. All other
    arguments are settings, with defaults.

    Raises:
        UserError: the function does not take what it has to.
    """
    _model(build, getattr(build, "__name__", repr(build)))
    return build


class OwnSpace(SearchSpace):
    """The space that a function spans; its key is its genes.

    Args:
        reference: `FILE.py:NAME` where it comes from such a file, which another process may then
            import from `path` if it still has the SHA-256 `digest`.

    Raises:
        UserError: the function, its settings or its picks make no sense.
    """

    def __init__(
        self,
        build: Build,
        settings: Mapping[str, Any],
        *,
        reference: str = "",
        path: Path = Path(),
        digest: str = "",
    ) -> None:
        self._title = reference or build.__name__
        self.settings = _checked(build, settings, self.title)
        self._reference, self._path, self._digest = reference, path, digest
        self._build: Build | None = build
        genes = _recorded(build, self.settings, self.title)
        version = digest[:8] or "own"
        super().__init__(f"{path.stem or 'python'}.{build.__name__}/{version}", genes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_build": None if self._reference else self._build}

    @property
    def title(self) -> str:
        return self._title

    @property
    def blueprint(self) -> Blueprint:
        if self._build is None:
            plugins.allow_again({self._reference.rpartition(":")[0]: self._digest}, [self._path])
            self._build = plugins.load(self._reference)
        model = _model(self._build, self.title, self.settings)
        return Blueprint(model, lambda: self, self._build)


class OwnSpaces:
    """Spaces that functions in Python files of the user's span: `space: {name: FILE.py:NAME}`."""

    Params = OwnSpaceParams
    shares: Literal["ops"] = "ops"
    has_networks = True

    @staticmethod
    def make_space(params: OwnSpaceParams) -> OwnSpace:
        """Imports the file and records the genes.

        Raises:
            UserError: the file may not be imported, or the function makes no sense.
        """
        build = plugins.load(params.name)
        path, digest = plugins.allowed(str(plugins.file_of(params.name)))
        return OwnSpace(build, params.settings, reference=params.name, path=path, digest=digest)


class OwnData:
    """Arrays that a function gives: `images, labels`, or those and `test_images, test_labels`.

    As a tuple or as a mapping with these names; images (n, h, w) or (n, h, w, c), uint8 or floats,
    and labels (n,), integers from 0.
    """

    Params = OwnDataParams
    statistics = None

    def __init__(self, params: OwnDataParams) -> None:
        self.params = params
        self.flippable = params.flippable

    def check(self) -> None:
        """Nothing is imported for a check."""
        file = plugins.place(str(plugins.file_of(self.params.name)))
        if not file.is_file():
            raise UserError(f"no file {file}; allowed: a Python file")

    def load(self) -> tuple[Images, Images | None]:
        name = self.params.name
        function = plugins.load(name)
        known = inspect.signature(function).parameters
        for key in self.params.settings.keys() - known.keys():
            raise UserError(
                f"data.{key}: unknown key; keys of {name}: {', '.join(sorted(known)) or 'none'}"
            )
        try:
            given = function(**self.params.settings)
        except Exception as error:  # whatever a user's function may raise
            raise UserError(f"data: {name} raised {type(error).__name__}: {error}") from error
        keys = ("images", "labels", "test_images", "test_labels")
        parts = [given.get(key) for key in keys] if isinstance(given, Mapping) else [*given]
        parts = [part for part in parts if part is not None]
        if len(parts) not in (2, 4) or not all(hasattr(part, "__len__") for part in parts):
            raise UserError(f"data: {name} gave {len(parts)} arrays; allowed: {', '.join(keys)}")
        arrays = [np.asarray(part) for part in parts]
        everything = as_images(name, *arrays[:2])
        test = as_images(name, *arrays[2:], prefix="test_") if arrays[2:] else None
        check_parts(Path(name), everything, test)
        return everything, test


def _checked(build: Build, settings: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The settings, and the defaults of those that are not given."""
    model = _model(build, title)
    try:
        return model.model_validate({**settings}).model_dump(exclude={"name"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        allowed = ", ".join(sorted(model.model_fields.keys() - {"name"})) or "none"
        known = first["type"] == "extra_forbidden"
        told = "unknown key" if known else f"is {first['input']!r}; {first['msg']}"
        raise UserError(f"space.{key}: {told}; keys of {title}: {allowed}") from None


def _model(
    build: Build, title: str, settings: Mapping[str, Any] = MappingProxyType({})
) -> type[Params]:
    """What a function takes besides the ends, each of the type of its default.

    Args:
        settings: the model's defaults, in place of the function's.
    """
    if not callable(build):
        raise UserError(f"{title} is no function; allowed: {FORM}")
    parameters = inspect.signature(build).parameters
    if [*parameters][:1] != ["pick"] or not {*ENDS} <= {*parameters}:
        raise UserError(f"{title}{inspect.signature(build)}; allowed: {FORM}")
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in ENDS:
            continue
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise UserError(f"{title} takes {parameter}; allowed: settings by name")
        required = parameter.default is parameter.empty
        kind: Any = Any if required or parameter.default is None else type(parameter.default)
        if kind in (list, tuple):
            kind = Annotated[kind, Field(strict=False)]
        default = settings.get(name, ... if required else parameter.default)
        fields[name] = (kind, default)
    return create_model(f"{build.__name__}Params", __base__=Params, name=(str, title), **fields)


class _Recorder:
    """A `pick` that takes the choices it is told to, and the first of all others."""

    def __init__(self, chosen: Mapping[str, str], title: str) -> None:
        self.chosen = chosen
        self.title = title
        self.genes: dict[str, tuple[str, ...]] = {}

    def __call__(self, gene: Any, candidates: Any) -> Any:
        where = f"{self.title}: pick({gene!r}, ...)"
        if not isinstance(gene, str) or not gene or any(c.isspace() for c in gene):
            raise UserError(f"{where}: the name of a gene is text without spaces")
        if not isinstance(candidates, Mapping) or not candidates:
            raise UserError(f"{where}: candidates are a mapping from names to what they stand for")
        choices = tuple(candidates)
        for choice in choices:
            if not isinstance(choice, str) or not choice or any(c.isspace() for c in choice):
                raise UserError(f"{where}: the candidate {choice!r}; allowed: text without spaces")
        if self.genes.setdefault(gene, choices) != choices:
            raise UserError(
                f"{where}: {', '.join(choices)}, and before {', '.join(self.genes[gene])}; "
                "allowed: the same candidates each time"
            )
        candidate = candidates[self.chosen.get(gene, choices[0])]
        return candidate() if callable(candidate) else candidate


def _recorded(build: Build, settings: Mapping[str, Any], title: str) -> list[Gene]:
    """The genes of a space, from calling its function: once, and once more for each other choice.

    On torch's meta device, so that no weights are made.
    """

    def picked(chosen: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        recorder = _Recorder(chosen, title)
        try:
            with torch.device("meta"):
                network = build(recorder, in_channels=3, classes=10, **settings)
        except UserError:
            raise
        except Exception as error:  # whatever a user's function may raise
            told = ", ".join(f"{gene} {choice}" for gene, choice in chosen.items()) or "the first"
            raise UserError(
                f"{title} raised {type(error).__name__} with {told}: {error}"
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(f"{title} gave a {type(network).__name__}; allowed: a torch.nn.Module")
        return recorder.genes

    genes = picked({})
    if not genes:
        raise UserError(f"{title} picks nothing; allowed: pick(gene, candidates), once or more")
    for gene, choice in _others(genes):
        found = picked({gene: choice})
        if found != genes:
            differing = sorted(found.keys() ^ genes.keys()) or [
                name for name in genes if found[name] != genes[name]
            ]
            raise UserError(
                f"{title}: whether or how {differing[0]} is picked depends on {gene} being "
                f"{choice}; allowed: picks that do not depend on one another"
            )
    return [Gene(name, choices) for name, choices in genes.items()]


def _others(genes: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Each choice but the first, of each gene."""
    return itertools.chain.from_iterable(
        ((gene, choice) for choice in choices[1:]) for gene, choices in genes.items()
    )
