"""Users' search spaces and data sets, each a function in a Python file."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
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
from evonas.traceback import place_of
from evonas.words import plain
from genomes import Gene, Genome, SearchSpace

Build = Callable[..., nn.Module]
REQUIRED = ("pick", "in_channels", "classes")  # the arguments of every space's function
MOST_TRIALS = 8
MOST_GENES = 1000
DRAWS = 16  # genomes that are drawn to find genes that only a combination of choices asks for
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
    by calling the function. Which genes it picks may depend on earlier picks; a gene that it does
    not pick is dead. All further arguments are settings, each with a default.

    The function is returned as it is, with an attribute `build`: `mine.build(genome, in_channels=1,
    classes=10, **settings)` is the network of a genome, as with `SearchSpace.build`.

    Raises:
        UserError: the function does not take the required arguments.
    """
    _model(build, getattr(build, "__name__", repr(build)))

    def network(
        genome: Genome | str, *, in_channels: int = 3, classes: int = 10, **settings: Any
    ) -> nn.Module:
        pairs = ((key, tuple(v) if isinstance(v, list) else v) for key, v in settings.items())
        made = _made(build, tuple(sorted(pairs)))
        text = genome.text if isinstance(genome, Genome) else genome  # of a file's space too
        built: nn.Module = made.build(text, in_channels=in_channels, classes=classes)
        return built

    build.build = network  # type: ignore[attr-defined]
    return build


@lru_cache(maxsize=32)
def _made(build: Build, settings: tuple[tuple[str, Any], ...]) -> OwnSpace:
    return OwnSpace(build, dict(settings))


class OwnSpace(SearchSpace):
    """The space that a function defines.

    A gene is dead in a genome if the function does not pick it, given the genome's other choices. A
    genome's key is its genes, with dead ones as their first choice.

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
        found = _found(build, self.settings, self.title)
        genes = [Gene(name, choices) for name, choices in found.genes.items()]
        self._sizes = list(found.sizes.values())
        self._conditional = found.conditional
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
        genomes = map(self.genome, (*ends, *others))
        return list(dict.fromkeys(map(self.canonical, genomes)))

    def describe(self, genome: Genome) -> str:
        return self.named(genome)

    def live(self, genome: Genome) -> tuple[bool, ...]:
        return _live(self, genome) if self._conditional else super().live(genome)

    def canonical(self, genome: Genome) -> Genome:
        live = self.live(genome)
        pairs = zip(genome.genes, live, strict=True)
        return genome if all(live) else self.genome(gene if alive else 0 for gene, alive in pairs)

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
            problem = f"{name} raised {type(error).__name__}: {error}{place_of(error)}"
            raise UserError(problem, hint="correct the function", key="data") from error
        everything, test, self.class_names = images_of(name, result, "returned", "return")
        return everything, test


def images_of(
    name: str, arrays: Any, does: str = "has", must: str = "have"
) -> tuple[Images, Images | None, list[str]]:
    """Return the images, test images and class names in a tuple or mapping of arrays.

    Args:
        name: where they are from.
        does, must: the verb for that, in `NAME has 3 values` and `must have`.

    Raises:
        UserError: they are not what `OwnData` takes.
    """
    keys = ("images", "labels", "test_images", "test_labels")
    named = isinstance(arrays, Mapping)
    parts = [arrays.get(key) for key in keys] if named else [*arrays]
    parts = [part for part in parts if part is not None]
    class_names = [str(each) for each in arrays.get("class_names", ())] if named else []
    if len(parts) not in (2, 4) or not all(hasattr(part, "__len__") for part in parts):
        raise UserError(
            f"{name} {does} {counted(len(parts), 'value')}",
            hint=f"must {must} the arrays {', '.join(keys)}, or the first two",
            key="data",
        )
    try:
        values = [np.asarray(part) for part in parts]
    except Exception as error:  # rows of different lengths, or a tensor on a GPU
        hint = f"must {must} NumPy arrays, such as with tensor.cpu().numpy()"
        raise UserError(f"{name} {does} no arrays: {error}", hint=hint, key="data") from error
    everything = as_images(name, *values[:2])
    test = as_images(name, *values[2:], prefix="test_") if values[2:] else None
    return everything, test, class_names


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


class _Found:
    """The genes of a space, from one call of its function and one for each other choice.

    A gene that only some choices ask for is found with these. The calls are on torch's meta device,
    so that no weights are allocated.

    Attributes:
        genes: the choices of each gene, in the order in which they are found.
        sizes: for each gene, the parameters of the network of each choice.
        conditional: whether a call did not pick all genes.
    """

    def __init__(self, build: Build, settings: Mapping[str, Any], title: str) -> None:
        self.build, self.settings, self.title = build, settings, title
        self.genes: dict[str, tuple[str, ...]] = {}
        self.sizes: dict[str, list[int]] = {}
        self._asked: set[frozenset[str]] = set()
        self._todo: deque[tuple[str, dict[str, str]]] = deque()

    @property
    def conditional(self) -> bool:
        return any(asked != self.genes.keys() for asked in self._asked)

    def look(self) -> None:
        """Find all genes.

        Raises:
            UserError: the function, or one of its picks, is invalid.
        """
        self._try({})
        if not self.genes:
            hint = "call pick(gene, candidates) at least once"
            raise UserError(f"{self.title} picks nothing", hint=hint)
        self._try({})
        if self.conditional:
            problem = f"{self.title} picks other genes when it is called again"
            raise UserError(problem, hint="it must not depend on chance or on earlier calls")
        self._try_others()
        rng = np.random.default_rng(0)
        for _ in range(DRAWS):
            self._try({gene: str(rng.choice(choices)) for gene, choices in self.genes.items()})
            self._try_others()

    def _try_others(self) -> None:
        while self._todo:
            gene, chosen = self._todo.popleft()
            self.sizes[gene].append(self._try(chosen))

    def _try(self, chosen: Mapping[str, str]) -> int:
        """Call the function; note the genes that are new, and plan a call for each other choice."""
        recorder = _Recorder(chosen, self.title)
        network = self._call(recorder)
        size = sum(p.numel() for p in network.parameters() if not is_lazy(p))
        before: dict[str, str] = {}  # what is chosen by then
        for gene, choices in recorder.genes.items():
            if self.genes.setdefault(gene, choices) != choices:
                raise UserError(
                    f"the candidates of {gene} change with {_listed(before)}: they were "
                    f"{', '.join(self.genes[gene])}, and are now {', '.join(choices)}",
                    hint="give the gene another name there, or the same candidates",
                    key=self.title,
                )
            if gene not in self.sizes:
                self.sizes[gene] = [size]
                self._todo += [(gene, {**before, gene: choice}) for choice in choices[1:]]
            if gene in chosen:
                before[gene] = chosen[gene]
        if len(self.genes) > MOST_GENES:
            problem = f"{self.title} has more than {MOST_GENES} genes"
            raise UserError(problem, hint="its picks must come to an end")
        self._asked.add(frozenset(recorder.genes))
        return size

    def _call(self, recorder: _Recorder) -> nn.Module:
        try:
            network = _on_meta(self.build, recorder, self.settings)
        except BaseException as error:  # a user's function may raise anything
            if isinstance(error, UserError) or interrupts.is_real(error):
                raise
            asked = {gene: c for gene, c in recorder.chosen.items() if gene in recorder.genes}
            raise UserError(
                f"{self.title} raised {type(error).__name__} with {_listed(asked)}: "
                f"{error}{place_of(error)}",
                hint="it must work for every choice",
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{self.title} returned a value of type {type(network).__name__}",
                hint="must return a torch.nn.Module",
            )
        return network


def _found(build: Build, settings: Mapping[str, Any], title: str) -> _Found:
    found = _Found(build, settings, title)
    found.look()
    return found


def _on_meta(build: Build, pick: _Recorder, settings: Mapping[str, Any]) -> Any:
    with contained(0), torch.device("meta"):
        return build(pick, in_channels=3, classes=10, **settings)


def _listed(chosen: Mapping[str, str]) -> str:
    return ", ".join(f"{gene}={choice}" for gene, choice in chosen.items()) or "all first choices"


@lru_cache(maxsize=4096)
def _live(space: OwnSpace, genome: Genome) -> tuple[bool, ...]:
    """Return whether the function picks each gene; of one that raises, those that it got to."""
    chosen = {gene.name: space.choice(genome, i) for i, gene in enumerate(space.genes)}
    recorder = _Recorder(chosen, space.title)
    build = space.blueprint.build
    assert build is not None
    with suppress(Exception):  # it is told when the network is built
        _on_meta(build, recorder, space.settings)
    return tuple(gene.name in recorder.genes for gene in space.genes)
