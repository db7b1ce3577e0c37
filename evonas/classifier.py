"""`evonas.ImageClassifier`: a search for the best small network as a scikit-learn classifier."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from evonas import api, api_training, config
from evonas.core import Budget, Constraint, Params, UserError
from evonas.data.dataset import DataSet, split_without_val
from evonas.data.image_folder import read_image, shorter_side
from evonas.experiment import ParallelParams
from evonas.jobs import machine
from evonas.jobs.allotment import Allotment, Sizes, allot, suited_recipe
from evonas.networks.decode import decode
from evonas.protocols import FitsImages
from evonas.starter import SMALL
from evonas.starter_images import DEFAULT_SPACE, VAL, size_for
from evonas.training.batches import resident
from evonas.training.loop import Hardware, seeded, threads, train
from evonas.training.norms import renew
from evonas.training.recipe import Recipe
from genomes import Genome

LEAST = 5  # images of a class
BATCH = 256  # images that are classified at a time
LOOKED_AT = 64  # images whose size is looked at
FORMS = "give arrays (n, h, w) or (n, h, w, channels), or a list of paths"


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Searches for the best small network for some images, trains it on all of them, and predicts.

    A fifth of the images is held out during the search, to compare networks on; at the end the best
    one is trained anew on all. How many networks are trained in the time depends on the machine, so
    a repetition may end with another network.

    Args:
        max_params: the most parameters that the network may have; None for no limit.
        max_flops: the most multiply-adds that it may take for an image; None for no limit.
        hours: how long `fit` may take, about.
        space: the search space: a name, or a mapping with settings as in the YAML. By default, one
            for images.
        strategy: the strategy, as for `evonas.search`.
        size: the height and width, in pixels, that images from paths are scaled and cropped to. By
            default, their own, up to 64.
        flippable: whether an image mirrored left to right still belongs to its class; then half of
            them are mirrored in training.
        device: `cpu`, `cuda` or `cuda:0`; `auto` is a GPU if there is one.
        n_jobs: the number of processes of the search; -1 for one per core, None for this process.
        random_state: determines the search and the weights that trainings begin with.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: how many numbers an image has.
        image_shape_: (channels, height, width).
        genome_: the network, in the notation of its space.
        network_: the trained network, a torch module.
        search_: what the search found (`evonas.SearchResult`).
    """

    def __init__(
        self,
        *,
        max_params: int | None = 50_000,
        max_flops: int | None = None,
        hours: float = 1.0,
        space: str | Mapping[str, Any] | None = None,
        strategy: str | Mapping[str, Any] = "auto",
        size: int | None = None,
        flippable: bool = False,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.max_params = max_params
        self.max_flops = max_flops
        self.hours = hours
        self.space = space
        self.strategy = strategy
        self.size = size
        self.flippable = flippable
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  # scikit-learn's name
        """Search, and train the best network on all images.

        Args:
            X: (n, h, w) or (n, h, w, channels), uint8 or floats; or a list of paths of images.
            y: (n,), the labels, of any type that can be sorted.

        Raises:
            ValueError: the images, the labels or an argument are not of these forms, or no network
                is within the limits.
        """
        since = time.monotonic()
        if not isinstance(self.hours, int | float) or not self.hours > 0:
            raise ValueError(f"hours is {self.hours!r}; must be a number above 0")
        with _told():
            data = self._given(X, y)
            seed = int(check_random_state(self.random_state).randint(2**31))
            recipe = suited_recipe(len(data["labels"]), self.image_shape_[1])
            space = config.component("space", "spaces", self._space())
            space = space.fitted(self.image_shape_) if isinstance(space, FitsImages) else space
            allotment = self._allotted(space, recipe, len(data["labels"]), since)
            genome = self._searched(space, data, recipe, allotment, seed, since)
            left = 3600 * self.hours - (time.monotonic() - since)
            enough = 0.95 * left > allotment.seconds
            budget = Budget(seconds=0.95 * left) if enough else allotment.budget
            self._train(genome, space, data, recipe, budget, seed)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803  # as above
        """Return the class of each image, (n,)."""
        best: NDArray[Any] = self.predict_proba(X).argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[best]
        return predicted

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803  # as above
        """Return how likely each class is for each image, (n, classes).

        Raises:
            ValueError: these are no images, or they have another shape than those of `fit`.
        """
        check_is_fitted(self)
        with _told():
            images = self._images(X).transpose(0, 3, 1, 2)
        if images.shape[1:] != self.image_shape_:
            raise ValueError(
                f"X has images of (channels, height, width) {images.shape[1:]}, but "
                f"{type(self).__name__} is fitted on {self.image_shape_}"
            )
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (self._mean, self._std))
        likely = []
        with torch.no_grad():
            for start in range(0, len(images), BATCH):
                batch = torch.from_numpy(np.array(images[start : start + BATCH]))
                logits = self.network_.eval()((batch.float() - mean) / std)
                likely.append(logits.double().softmax(dim=1).numpy())
        return np.concatenate(likely)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True  # the clock decides how many networks are trained
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True  # paths
        return tags

    def _given(self, pictures: Any, y: Any) -> dict[str, NDArray[Any]]:
        """Return the arrays of a data set, and set the attributes that follow from them."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self._paths_size = self._size_of(pictures) if _are_paths(pictures) else None
        images = self._images(pictures)
        if len(images) != len(y):
            raise ValueError(f"X has {len(images)} images, and y {len(y)} labels")
        self.classes_, first, labels, counts = np.unique(
            y, return_index=True, return_inverse=True, return_counts=True
        )
        if len(counts) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]}; give two or more classes")
        if counts.min() < LEAST:
            rare = self.classes_[counts.argmin()]
            raise ValueError(
                f"class {rare} has n_samples={counts.min()}; each class must have at least {LEAST}"
            )
        height, width, channels = images.shape[1:]
        self.image_shape_ = (channels, height, width)
        self.n_features_in_ = channels * height * width
        # There is no test part: a few images stand in, which nothing measures.
        tested = {"test_images": images[first], "test_labels": labels[first]}
        return {"images": images, "labels": labels, **tested}

    def _images(self, pictures: Any) -> NDArray[Any]:
        """Return images, (n, h, w, c)."""
        if _are_paths(pictures):
            if self._paths_size is None:
                raise ValueError("X is a list of paths; give arrays, as in fit")
            return _read(pictures, self._paths_size)
        if issparse(pictures):
            raise TypeError("X is sparse; images are dense: give X.toarray()")
        images = np.asarray(pictures)
        if images.ndim not in (3, 4) or 0 in images.shape:
            raise ValueError(f"X has the shape {images.shape}; {FORMS}")
        images = images[..., None] if images.ndim == 3 else images
        if images.dtype == np.uint8:
            return images
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise ValueError("X contains NaN or infinity; give finite numbers")
        return images

    def _size_of(self, paths: Sequence[Any]) -> int:
        if self.size is not None:
            return self.size
        places = np.linspace(0, len(paths) - 1, min(len(paths), LOOKED_AT)).round().astype(int)
        sides = []
        for place in places.tolist():
            read_image(Path(paths[place]), 4, "RGB")  # raises if it cannot be read
            sides.append(shorter_side(Path(paths[place])))
        return size_for(round(float(np.median(sides))), self.hours)

    def _space(self) -> dict[str, Any]:
        """Return the settings of the space, its name among them."""
        space = self.space or {"name": DEFAULT_SPACE, **SMALL.get(DEFAULT_SPACE, {})}
        return {"name": space} if isinstance(space, str) else dict(space)

    def _allotted(self, space: Params, recipe: Recipe, images: int, since: float) -> Allotment:
        """Return how long each network is trained."""
        val = max(int(VAL * images), len(self.classes_))
        sizes = Sizes(self.image_shape_, len(self.classes_), images - val, val)
        parallel = ParallelParams(device=self.device, workers=self._processes() or 1)
        return allot(space, sizes, recipe, self._constraints(), self.hours, since, parallel)

    def _searched(
        self,
        space: Params,
        data: Mapping[str, NDArray[Any]],
        recipe: Recipe,
        allotment: Allotment,
        seed: int,
        since: float,
    ) -> Genome:
        """Return the best network of a search."""
        split = {"val": VAL, "subset": allotment.subset, "flippable": self.flippable}
        bounds = self._constraints()
        until = config.SEARCH_SHARE * 3600 * self.hours
        self.search_ = api.search(
            dict(space),
            evaluate=api_training.training_evaluator(
                data={**data, **split},
                budget=allotment.budget,
                recipe=recipe,
                device=self.device,
                workers=self._processes(),
            ),
            objectives=["val_error", *(bound.name for bound in bounds[:1])],
            constraints=bounds,
            strategy=self._strategy(allotment),
            seconds=max(until - (time.monotonic() - since), 1e-3),
            seed=seed,
        )
        if not self.search_.genomes:
            statuses = ", ".join(sorted(set(self.search_.evaluations["status"])))
            raise ValueError(f"the search found no network ({statuses}); raise hours or the limits")
        return self.search_.genomes[0]

    def _train(
        self,
        genome: Genome,
        settings: Params,
        data: Mapping[str, NDArray[Any]],
        recipe: Recipe,
        budget: Budget,
        seed: int,
    ) -> None:
        """Train the network of a genome on all images."""
        source = api_training.Arrays(data, self.flippable)
        everything, _ = split_without_val(source, api_training.ArrayParams())
        parallel = machine.resolve(ParallelParams(device=self.device, workers=1))
        hardware = machine.hardware(parallel)
        machine.take_gpu(parallel.device)
        space = self.search_.space
        with seeded(seed, hardware.device), threads(hardware.threads):
            network = decode(
                space,
                space.canonical(genome),
                in_channels=self.image_shape_[0],
                classes=len(self.classes_),
                **settings.model_dump(exclude={"name"}),
            )
            self.network_ = _trained(network, everything, recipe, budget, seed, hardware)
        self.genome_ = space.describe(genome)
        self._mean, self._std = everything.mean, everything.std

    def _strategy(self, allotment: Allotment) -> str | Mapping[str, Any]:
        if self.strategy != "auto":
            return self.strategy
        return {"name": "auto", "seeds": list(allotment.seeds)}

    def _constraints(self) -> list[Constraint]:
        limits = {"params": self.max_params, "flops": self.max_flops}
        return [Constraint(name=name, max=most) for name, most in limits.items() if most]

    def _processes(self) -> int | None:
        return joblib.cpu_count() if self.n_jobs == -1 else self.n_jobs


def _trained(
    network: Any, data: DataSet, recipe: Recipe, budget: Budget, seed: int, hardware: Hardware
) -> Any:
    """Train a network, and return it on the CPU."""
    hardware = hardware.suited_to(network, data.image_shape)
    hardware.place(network)
    images = resident(data, torch.device(hardware.device))
    done = train(network, images, recipe, budget, seed, hardware)
    if done.diverged:
        raise ValueError("the loss of the final training became NaN or infinite; scale the images")
    renew(network, images, recipe, done.steps, recipe.batch_size, hardware)
    return network.to("cpu").to(memory_format=torch.contiguous_format).eval()


def _are_paths(pictures: Any) -> bool:
    """Return whether these are paths, by the first of them."""
    listed = isinstance(pictures, Sequence | np.ndarray) and not isinstance(pictures, str | bytes)
    return listed and len(pictures) > 0 and isinstance(pictures[0], str | Path)


def _read(paths: Sequence[Any], size: int) -> NDArray[np.uint8]:
    """Return images in colour, (n, size, size, 3).

    Raises:
        UserError: one cannot be read.
    """
    each = joblib.Parallel(joblib.cpu_count(), prefer="threads")(
        joblib.delayed(read_image)(Path(path), size, "RGB") for path in paths
    )
    return np.stack(each).transpose(0, 2, 3, 1)


@contextmanager
def _told() -> Iterator[None]:
    """Raises evonas's errors of the user's as ValueError, as scikit-learn does."""
    try:
        yield
    except UserError as error:
        raise ValueError(str(error)) from None
