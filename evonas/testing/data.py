"""What every data set promises: each contract is a function that raises AssertionError.

from evonas.testing import data

@pytest.mark.parametrize("contract", data.CONTRACTS, ids=lambda each: each.__name__)
def test_mine_keeps_its_promises(contract):
    contract(data.maker(Mine, MineParams(path="some/folder")))
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evonas.core import UserError
from evonas.data.dataset import DataParams, DataSource, Images, split
from evonas.testing.contract import contract, global_generators


@dataclass(frozen=True)
class Make:
    """Makes a data set anew; see `maker`."""

    kind: Callable[[Any], DataSource]
    params: DataParams

    def __call__(self, **changes: object) -> DataSource:
        return self.kind(self.params.model_copy(update=changes))

    def parts(self) -> list[Images]:
        """All images, and the test part if the data set comes with one."""
        everything, test = self().load()
        return [everything] if test is None else [everything, test]


def maker(kind: Callable[[Any], DataSource], params: DataParams) -> Make:
    """Makes data sets of these settings."""
    return Make(kind, params)


@contract
def to_load_twice_gives_the_same(make: Make) -> None:
    """The same object and another give the same images and labels each time."""
    source = make()
    first, *others = [source.load(), source.load(), make().load()]
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert (one is None) == (two is None), "the test part comes and goes"
            if one is not None and two is not None:
                assert np.array_equal(one.images, two.images), "the images differ"
                assert np.array_equal(one.labels, two.labels), "the labels differ"


@contract
def images_are_bytes_or_floats(make: Make) -> None:
    """Images are (n, c, h, w), uint8 or float32, and finite."""
    for part in make.parts():
        shape, kind = part.images.shape, part.images.dtype
        assert len(shape) == 4, f"the images are of shape {shape}"
        assert part.images.size, "there are no images"
        assert kind in (np.uint8, np.float32), f"the images are of type {kind}"
        assert np.isfinite(part.images).all(), "an image is not finite"


@contract
def every_image_has_a_label(make: Make) -> None:
    """Labels are (n,), int64, one for each image."""
    for part in make.parts():
        assert part.labels.dtype == np.int64, f"the labels are of type {part.labels.dtype}"
        assert part.labels.shape == part.images.shape[:1], "not one label for each image"


@contract
def labels_have_no_gaps(make: Make) -> None:
    """Labels count the classes from 0, and each class has an image."""
    labels = make.parts()[0].labels
    assert labels.min() == 0, f"the labels begin at {labels.min()}"
    assert np.bincount(labels).min() > 0, "a class has no image"


@contract
def the_test_part_is_of_the_same_kind(make: Make) -> None:
    """Test images have the others' shape and type, and no class that the others lack."""
    for everything, test in zip(make.parts()[:1], make.parts()[1:], strict=False):
        assert test.images.shape[1:] == everything.images.shape[1:], "test images differ in shape"
        assert test.images.dtype == everything.images.dtype, "test images differ in type"
        assert test.labels.max() <= everything.labels.max(), "a class is in the test part alone"


@contract
def check_reads_no_images(make: Make) -> None:
    """`check` passes, and takes less memory than the images."""
    source = make()
    source.check()  # what it imports is not counted
    size = sum(part.images.nbytes for part in make.parts())
    tracemalloc.start()
    try:
        source.check()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size, f"check takes {peak} bytes of memory, the images {size}"


@contract
def missing_files_are_a_users_error(make: Make) -> None:
    """With a path to nothing, `check` and `load` raise UserError."""
    if "path" not in type(make.params).model_fields:
        return
    missing = make(path="/nowhere/at/all")
    for call in (missing.check, missing.load):
        try:
            call()
        except UserError:
            continue
        raise AssertionError(f"{call.__name__} does not say that there is nothing at the path")


@contract
def statistics_are_one_pair_a_channel(make: Make) -> None:
    """Published statistics are a mean and a standard deviation for each channel, as shares."""
    statistics = make().statistics
    if statistics is None:
        return
    images = make.parts()[0].images
    assert images.dtype == np.uint8, "statistics are for uint8 images alone"
    for numbers in statistics:
        assert len(numbers) == images.shape[1], (
            f"{len(numbers)} numbers, {images.shape[1]} channels"
        )
        assert all(0 < number < 1 for number in numbers), f"{numbers} are no shares of 255"


@contract
def the_split_is_stratified(make: Make) -> None:
    """Each class has its share of the validation images, up to one image, and none is in two
    parts."""
    data, _ = split(make(), make.params)
    searched = len(data.train) + len(data.val)
    everything = make.parts()[0]
    assert searched <= len(everything), "an image is in two parts"
    both = np.bincount(data.train.labels) + np.bincount(data.val.labels)
    share = both * len(data.val) / searched
    assert (np.abs(np.bincount(data.val.labels) - share) <= 1).all(), "a class has another share"


@contract
def the_split_is_repeatable(make: Make) -> None:
    """The same settings give the same fingerprint, and another `split_seed` gives another."""
    other_params = make.params.model_copy(update={"split_seed": make.params.split_seed + 1})
    first, second, other = (
        split(make(), params)[0].fingerprint for params in (make.params, make.params, other_params)
    )
    assert first == second, "two splits of the same settings differ"
    assert first != other, "another split_seed gives the same split"


@contract
def other_generators_are_left_alone(make: Make) -> None:
    """Loading draws nothing from the global generators."""
    before = global_generators()
    make.parts()
    assert before == global_generators(), "it draws from a global generator"


CONTRACTS: tuple[Callable[[Make], None], ...] = (
    to_load_twice_gives_the_same,
    images_are_bytes_or_floats,
    every_image_has_a_label,
    labels_have_no_gaps,
    the_test_part_is_of_the_same_kind,
    check_reads_no_images,
    missing_files_are_a_users_error,
    statistics_are_one_pair_a_channel,
    the_split_is_stratified,
    the_split_is_repeatable,
    other_generators_are_left_alone,
)
