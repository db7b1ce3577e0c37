"""Users' search spaces and data sets, each a function in a Python file."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, create_model
from torch import nn
from torch.nn.parameter import is_lazy

from evonas import interrupts, plugins
from evonas.contained import contained
from evonas.core import Blueprint, Params, UserError, by_name
from evonas.data.dataset import DataParams, Images, as_images
from evonas.markdown import counted
from evonas.own_classes import OwnParams
from evonas.words import plain
from genomes import Gene, Genome, SearchSpace

Build = Callable[..., nn.Module]
REQUIRED = ("pick", "in_channels", "classes")  # the arguments of every space's function
MOST_TRIALS = 8
FORM = "def NAME(pick, *, in_channels, classes, ...)"


class OwnSpaceParams(OwnParams):
    """The settings of a user's space: the further arguments of its function."""


class OwnDataParams(OwnParams, DataParams):
    """The settings of a user's data set: its function's arguments, and how to split the images."""

    model_config = ConfigDict(extra="allow")
    flippable: bool = False
    """Whether an image mirrored left to right still belongs to its class."""


def space(build: Build) -> Build:
    """Mark a function as a search space: `build(pick, *, in_channels, classes, ...)`.

    `pick(gene, candidates)` returns the candidate that the genome chooses; a class or a function
    is called without arguments first. The candidates are a mapping from their names, or a list,
    such as `[12, 20, 32]`, whose candidates are called by what they are. The genes are determined
    by calling the function, so which genes it picks must not depend on earlier picks. All further
    arguments are settings, each with a default.

    Raises:
        UserError: the function does not take the required arguments.
    """
    _model(build, getattr(build, "__name__", repr(build)))
    return build


class OwnSpace(SearchSpace):
    """The space that a function defines; a genome's key is its genes.

    Args:
        reference: `FILE.py:NAME` if the function comes from such a file.
        code: this file, which another process may then import as it was here.

    Raises:
        UserError: the function, its settings or its picks are invalid.
    """

    def __init__(
        self,
        build: Build,
        settings: Mapping[str, Any],
        *,
        reference: str = "",
        code: plugins.Code | None = None,
    ) -> None:
        self._title = reference or build.__name__
        self.settings = _checked(build, settings, self.title)
        self._reference, self._code = reference, code
        self._build: Build | None = build
        genes, self._sizes = _recorded(build, self.settings, self.title)
        stem, version = (code.path.stem, code.digest[:8]) if code else ("python", "own")
        super().__init__(f"{stem}.{build.__name__}/{version}", genes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_build": None if self._reference else self._build}

    @property
    def title(self) -> str:
        """The name of the function, or `FILE.py:NAME`."""
        return self._title

    def trials(self) -> list[Genome]:
        """Return genomes to try out before a search, always the same.

        The smallest and the largest, by what each choice adds to the parameters if all others are
        the first, and some in which each choice occurs, of genes with up to `MOST_TRIALS`.
        """
        ends = [[by(sizes) for sizes in self._sizes] for by in (np.argmin, np.argmax)]
        rng = np.random.default_rng(0)
        orders = [rng.permutation(count) for count in self.choices]
        number = min(max(self.choices), MOST_TRIALS)
        others = [[order[i % len(order)] for order in orders] for i in range(number)]
        return list(dict.fromkeys(map(self.genome, (*ends, *others))))

    @property
    def blueprint(self) -> Blueprint:
        """How its networks are built; in another process, the file is imported first."""
        if self._build is None:
            assert self._code is not None, "else the function itself was sent"
            plugins.allow_in_worker({self._reference.rpartition(":")[0]: self._code})
            self._build = plugins.load(self._reference)
        model = _model(self._build, self.title, self.settings)
        return Blueprint(model, lambda: self, self._build)


class OwnSpaces:
    """The spaces that functions in users' files define: `space: {name: FILE.py:NAME}`."""

    Params = OwnSpaceParams
    shares: Literal["ops"] = "ops"
    has_networks = True

    @staticmethod
    def make_space(params: OwnSpaceParams) -> OwnSpace:
        """Import the file and record the genes.

        Raises:
            UserError: the file may not be imported, or the function is invalid.
        """
        build = plugins.load(params.name)
        code = plugins.allowed(str(plugins.file_of(params.name)))
        return OwnSpace(build, params.settings, reference=params.name, code=code)


class OwnData:
    """A data set that a function returns: `images, labels` or all of `images, labels, test_images,
    test_labels`.

    It is a tuple, or a mapping with these names, of arrays: images (n, h, w) or (n, h, w, c), uint8
    or floats, and labels (n,), integers from 0.
    """

    Params = OwnDataParams
    statistics = None

    def __init__(self, params: OwnDataParams) -> None:
        self.params = params
        self.flippable = params.flippable

    def check(self) -> None:
        """Raise UserError if the file is missing, without importing it."""
        file = plugins.place(str(plugins.file_of(self.params.name)))
        if not file.is_file():
            raise UserError(f"{file} does not exist", hint="give a Python file")

    def load(self) -> tuple[Images, Images | None]:
        """Call the function; return its images, and its test images if there are any.

        Raises:
            UserError: the file may not be imported, or the function or its result is invalid.
        """
        name = self.params.name
        function = plugins.load(name)
        arguments = inspect.signature(function).parameters
        for key in self.params.settings.keys() - arguments.keys():
            raise UserError(
                "unknown key",
                hint=f"keys of {name}: {', '.join(sorted(arguments)) or 'none'}",
                key=f"data.{key}",
            )
        settings = {
            key: plain(value, _kind(arguments[key])) for key, value in self.params.settings.items()
        }
        try:
            result = function(**settings)
        except Exception as error:  # a user's function may raise anything
            problem = f"{name} raised {type(error).__name__}: {error}"
            raise UserError(problem, hint="correct the function", key="data") from error
        keys = ("images", "labels", "test_images", "test_labels")
        parts = [result.get(key) for key in keys] if isinstance(result, Mapping) else [*result]
        parts = [part for part in parts if part is not None]
        if isinstance(result, Mapping):
            self.class_names = [str(name) for name in result.get("class_names", ())]
        if len(parts) not in (2, 4) or not all(hasattr(part, "__len__") for part in parts):
            raise UserError(
                f"{name} returned {counted(len(parts), 'value')}",
                hint=f"must return the arrays {', '.join(keys)}, or the first two",
                key="data",
            )
        try:
            arrays = [np.asarray(part) for part in parts]
        except Exception as error:  # rows of different lengths, or a tensor on a GPU
            problem = f"{name} returned no arrays: {error}"
            hint = "must return NumPy arrays, such as with tensor.cpu().numpy()"
            raise UserError(problem, hint=hint, key="data") from error
        everything = as_images(name, *arrays[:2])
        test = as_images(name, *arrays[2:], prefix="test_") if arrays[2:] else None
        return everything, test


def _checked(build: Build, settings: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Return the settings, completed by the function's defaults."""
    model = _model(build, title)
    try:
        return model.model_validate({**settings}).model_dump(exclude={"name"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        allowed = ", ".join(sorted(model.model_fields.keys() - {"name"})) or "none"
        unknown = first["type"] == "extra_forbidden"
        problem = "unknown key" if unknown else f"is {first['input']!r}: {first['msg']}"
        raise UserError(problem, hint=f"keys of {title}: {allowed}", key=f"space.{key}") from None


def _model(
    build: Build, title: str, settings: Mapping[str, Any] = MappingProxyType({})
) -> type[Params]:
    """Return a model of a function's settings, each with the type of its default.

    Args:
        settings: defaults of the model that replace the function's.
    """
    if not callable(build):
        raise UserError(f"{title} is not a function", hint=f"must be of the form {FORM}")
    parameters = inspect.signature(build).parameters
    if [*parameters][:1] != ["pick"] or not {*REQUIRED} <= {*parameters}:
        raise UserError(
            f"{title} has the arguments {inspect.signature(build)}",
            hint=f"must be of the form {FORM}",
        )
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in REQUIRED:
            continue
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise UserError(
                f"{title} has an argument {parameter}",
                hint="it may have only arguments that can be passed by name",
            )
        required = parameter.default is parameter.empty
        kind = _kind(parameter)
        if kind in (list, tuple):
            kind = Annotated[kind, Field(strict=False)]
        default = settings.get(name, ... if required else parameter.default)
        fields[name] = (kind, default)
    return create_model(f"{build.__name__}Params", __base__=Params, name=(str, title), **fields)


def _kind(parameter: inspect.Parameter) -> Any:
    """Return the type of an argument's default; `Any` without one."""
    default = parameter.default
    return Any if default is parameter.empty or default is None else type(default)


class _Recorder:
    """A `pick` that takes the chosen candidates, or the first one, and records all genes."""

    def __init__(self, chosen: Mapping[str, str], title: str) -> None:
        self.chosen = chosen
        self.title = title
        self.genes: dict[str, tuple[str, ...]] = {}

    def __call__(self, gene: Any, candidates: Any) -> Any:
        where = f"{self.title}: pick({gene!r}, ...)"
        if not isinstance(gene, str) or not gene or any(c.isspace() for c in gene):
            raise UserError(
                "the gene's name is invalid", hint="must be text without spaces", key=where
            )
        if not isinstance(candidates, Mapping | list | tuple | range) or not candidates:
            raise UserError(
                "there are no candidates",
                hint="must be a list of candidates, or a mapping from names to candidates",
                key=where,
            )
        count, candidates = len(candidates), by_name(candidates)
        choices = tuple(candidates)
        if len(choices) < count:
            raise UserError(
                f"two candidates have the same name among {', '.join(choices)}",
                hint="give a mapping from names to candidates",
                key=where,
            )
        for choice in choices:
            if not isinstance(choice, str) or not choice or any(c.isspace() for c in choice):
                raise UserError(
                    f"the candidate's name {choice!r} is invalid",
                    hint="must be text without spaces; give a mapping from names to candidates",
                    key=where,
                )
        if self.genes.setdefault(gene, choices) != choices:
            raise UserError(
                f"the candidates were {', '.join(self.genes[gene])} before, and are now "
                f"{', '.join(choices)}",
                hint="must be the same each time",
                key=where,
            )
        candidate = candidates[self.chosen.get(gene, choices[0])]
        return candidate() if callable(candidate) else candidate


def _recorded(
    build: Build, settings: Mapping[str, Any], title: str
) -> tuple[list[Gene], list[list[int]]]:
    """Return the genes of a space, from one call of its function and one for each other choice.

    The calls are on torch's meta device, so that no weights are allocated.

    Returns:
        The genes; and for each of them the parameters of the network of each choice.
    """

    def picked(chosen: Mapping[str, str]) -> tuple[dict[str, tuple[str, ...]], int]:
        recorder = _Recorder(chosen, title)
        try:
            with contained(0), torch.device("meta"):
                network = build(recorder, in_channels=3, classes=10, **settings)
        except BaseException as error:  # a user's function may raise anything
            if isinstance(error, UserError) or interrupts.is_real(error):
                raise
            choices = ", ".join(f"{gene}={choice}" for gene, choice in chosen.items())
            choices = choices or "all first choices"
            raise UserError(
                f"{title} raised {type(error).__name__} with {choices}: {error}",
                hint="it must work for every choice",
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{title} returned a value of type {type(network).__name__}",
                hint="must return a torch.nn.Module",
            )
        return recorder.genes, sum(p.numel() for p in network.parameters() if not is_lazy(p))

    genes, first = picked({})
    if not genes:
        raise UserError(f"{title} picks nothing", hint="call pick(gene, candidates) at least once")
    sizes = {gene: [first] for gene in genes}
    for gene, choice in _others(genes):
        others, size = picked({gene: choice})
        sizes[gene].append(size)
        if others != genes:
            differing = sorted(others.keys() ^ genes.keys()) or [
                name for name in genes if others[name] != genes[name]
            ]
            raise UserError(
                f"whether {differing[0]} is picked, or from what, changes if {gene} is {choice}",
                hint="picks must not depend on one another",
                key=title,
            )
    return [Gene(name, choices) for name, choices in genes.items()], list(sizes.values())


def _others(genes: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Return every choice except the first, for each gene."""
    return itertools.chain.from_iterable(
        ((gene, choice) for choice in choices[1:]) for gene, choices in genes.items()
    )
