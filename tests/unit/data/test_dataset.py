"""Data sets, and the split that every search and comparison stands on."""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from evonas import plugins, yamlfile
from evonas.core import UserError
from evonas.data.dataset import (
    DataParams,
    DataSet,
    Images,
    split,
    split_with_places,
    value_range,
)
from evonas.data.digits import Digits, DigitsParams
from evonas.data.npz import Npz, NpzParams
from evonas.own import OwnData, OwnDataParams

Arrays = dict[str, NDArray[Any]]


@dataclass
class Source:
    """A data set whose images each hold one number: their place, or in a test part some steps."""

    labels: NDArray[np.int64]
    test_labels: NDArray[np.int64] | None = None
    flippable: bool = False
    statistics: None = None

    def check(self) -> None:
        """Nothing is missing."""

    def load(self) -> tuple[Images, Images | None]:
        def numbered(labels: NDArray[np.int64], step: int) -> Images:
            numbers = np.arange(0, step * len(labels), step, dtype=np.float32)
            return Images(numbers.reshape(-1, 1, 1, 1), labels)

        if self.test_labels is None:
            return numbered(self.labels, 1), None
        step = len(self.labels) // len(self.test_labels)  # both parts on one scale
        return numbered(self.labels, 1), numbered(self.test_labels, step)


def places(part: Images) -> list[int]:
    """Where the images of a numbered source stood."""
    return [int(number) for number in part.images[:, 0, 0, 0]]


def arrays_of(n: int) -> Arrays:
    """Images, (n, 4, 4, 3), each unlike all others, of 3 classes."""
    images = np.random.default_rng(n).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return {"images": images, "labels": np.arange(n) % 3}


def saved(folder: Path, arrays: Arrays, **params: Any) -> NpzParams:
    file = folder / "images.npz"
    np.savez(file, **arrays)
    return NpzParams(path=str(file), **params)


def loaded(folder: Path, arrays: Arrays, **params: Any) -> tuple[DataSet, Images]:
    settings = saved(folder, arrays, **params)
    return split(Npz(settings), settings)


def fingerprint(folder: Path, arrays: Arrays) -> str:
    return loaded(folder, arrays)[0].fingerprint


@pytest.fixture(scope="module")
def digits() -> Images:
    return Digits(DigitsParams()).load()[0]


# The split


def farthest(digits: Images, params: DataParams) -> float:
    """How many images a class has too many or too few in a part, at most."""
    data, test = split(Source(digits.labels), params)
    every_class = np.bincount(digits.labels)
    shares = (
        (data.train, 1 - params.val - params.test),
        (data.val, params.val),
        (test, params.test),
    )
    return max(
        float(np.abs(np.bincount(part.labels, minlength=10) - share * every_class).max())
        for part, share in shares
    )


@pytest.mark.parametrize("split_seed", range(5))
def test_each_class_has_its_share_of_each_part_within_an_image(
    digits: Images, split_seed: int
) -> None:
    assert farthest(digits, DataParams(split_seed=split_seed)) < 1


@pytest.mark.parametrize(
    ("val", "test"), [(0.1, 0.3), (0.5, 0.25), (0.013, 0.9), (0.25, 0.01), (0.01, 0.01)]
)
def test_uneven_shares_are_met_within_two_images(digits: Images, val: float, test: float) -> None:
    assert farthest(digits, DataParams(val=val, test=test)) < 2  # rounded once for each cut


def test_the_digits_are_split_in_1079_359_and_359() -> None:
    data, test = split(Digits(DigitsParams()), DigitsParams())
    assert (len(data.train), len(data.val), len(test)) == (1079, 359, 359)
    assert data.image_shape == (1, 8, 8)
    assert data.classes == 10
    assert not data.flippable
    assert data.train.images.dtype == np.uint8
    assert (data.train.images.min(), data.train.images.max()) == (0, 16)


def test_the_parts_share_no_image_and_together_hold_all(digits: Images) -> None:
    data, test = split(Source(digits.labels), DataParams())
    together = places(data.train) + places(data.val) + places(test)
    assert sorted(together) == list(range(len(digits)))


def test_labels_go_with_their_images(digits: Images) -> None:
    data, test = split(Source(digits.labels), DataParams())
    for part in (data.train, data.val, test):
        np.testing.assert_array_equal(part.labels, digits.labels[places(part)])


def test_the_same_split_seed_gives_the_same_split(digits: Images) -> None:
    source = Source(digits.labels)
    np.random.seed(1)  # noqa: NPY002  the global state has no say
    first, first_test = split(source, DataParams(split_seed=3))
    np.random.seed(2)  # noqa: NPY002
    again, again_test = split(source, DataParams(split_seed=3))
    assert places(first.train) == places(again.train)
    assert places(first.val) == places(again.val)
    assert places(first_test) == places(again_test)
    assert first.fingerprint == again.fingerprint


@pytest.mark.parametrize("split_seed", range(20))
def test_the_rows_are_those_of_scikit_learns_stratified_split(split_seed: int) -> None:
    rng = np.random.default_rng(split_seed)
    labels = rng.permutation(np.repeat(np.arange(5), rng.integers(5, 60, size=5)))
    size = round(0.3 * len(labels))
    rest, taken = train_test_split(
        np.arange(len(labels)), test_size=size, random_state=split_seed, stratify=labels
    )
    data, _ = split(Source(labels, labels), DataParams(val=0.3, split_seed=split_seed))
    assert places(data.train) == sorted(rest)
    assert places(data.val) == sorted(taken)


def test_the_digits_are_those_of_scikit_learn(digits: Images) -> None:
    original = load_digits()
    assert (digits.images[:, 0] == original.images).all()
    assert (digits.labels == original.target).all()


def test_another_split_seed_gives_another_split(digits: Images) -> None:
    source = Source(digits.labels)
    first, first_test = split(source, DataParams(split_seed=3))
    other, other_test = split(source, DataParams(split_seed=4))
    assert places(first.val) != places(other.val)
    assert places(first_test) != places(other_test)
    assert first.fingerprint != other.fingerprint


def test_another_share_of_val_leaves_the_test_part_as_it_is(digits: Images) -> None:
    source = Source(digits.labels)
    tests = [split(source, DataParams(val=val))[1] for val in (0.1, 0.3)]
    assert places(tests[0]) == places(tests[1])


def test_a_data_set_holds_no_test_image(digits: Images) -> None:
    data, test = split(Source(digits.labels), DataParams())
    assert {field.name for field in fields(DataSet)} == {
        *("train", "val", "classes", "mean", "std", "flippable", "fingerprint"),
        *("class_names", "values"),
    }
    assert set(places(test)).isdisjoint(places(data.train) + places(data.val))
    for part in (data.train, data.val):  # nor do its arrays show a piece of a larger one
        assert part.images.base is None
        assert part.labels.base is None
    arrays = (*(p.images for p in (data.train, data.val)), data.train.labels, data.val.labels)
    assert len(pickle.dumps(data)) < sum(array.nbytes for array in arrays) + 2000


def test_a_test_part_of_its_own_is_kept_and_takes_nothing_from_the_others() -> None:
    labels, test_labels = np.arange(100) % 4, np.arange(12) % 4
    data, test = split(Source(labels, test_labels), DataParams(val=0.2, test=0.7))
    assert places(test) == list(range(0, 96, 8))
    assert sorted(places(data.train) + places(data.val)) == list(range(100))
    assert len(data.val) == 20


def test_mean_and_std_are_those_of_the_training_images_alone(digits: Images) -> None:
    data, _ = split(Source(digits.labels), DataParams())
    numbers = np.array(places(data.train))
    assert data.mean == pytest.approx([numbers.mean()])
    assert data.std == pytest.approx([numbers.std()])
    assert abs(data.mean[0] - (len(digits) - 1) / 2) > 0.1  # of all


def test_a_channel_of_one_colour_can_still_be_divided_by_its_std(tmp_path: Path) -> None:
    arrays = arrays_of(60)
    arrays["images"][..., 1:] = 7
    data, _ = loaded(tmp_path, arrays)
    assert data.mean[1:] == (7.0, 7.0)
    assert all(0 < std < 1e-6 for std in data.std[1:])


# The fingerprint


def test_one_pixel_changes_the_fingerprint(tmp_path: Path) -> None:
    before, after = arrays_of(60), arrays_of(60)
    after["images"][17, 3, 2, 1] ^= 1
    assert fingerprint(tmp_path, before) != fingerprint(tmp_path, after)


def test_one_label_changes_the_fingerprint(tmp_path: Path) -> None:
    before, after = arrays_of(60), arrays_of(60)
    after["labels"][[0, 1]] = after["labels"][[1, 0]]
    assert fingerprint(tmp_path, before) != fingerprint(tmp_path, after)


def test_the_test_part_changes_the_fingerprint(tmp_path: Path) -> None:
    test = {f"test_{name}": array for name, array in arrays_of(12).items()}
    before = arrays_of(60) | test
    other_images = before | {"test_images": test["test_images"] ^ 1}
    other_labels = before | {"test_labels": test["test_labels"][::-1]}
    prints = {fingerprint(tmp_path, each) for each in (before, other_images, other_labels)}
    assert len(prints) == 3


def test_another_shape_or_type_of_the_same_bytes_changes_the_fingerprint(tmp_path: Path) -> None:
    arrays = arrays_of(60)
    tall = arrays | {"images": arrays["images"].reshape(60, 8, 2, 3)}
    floats = arrays | {"images": arrays["images"].astype(np.float32)}
    prints = {fingerprint(tmp_path, each) for each in (arrays, tall, floats)}
    assert len(prints) == 3


def test_the_fingerprint_is_that_of_the_contents_and_not_of_the_file(tmp_path: Path) -> None:
    arrays = arrays_of(60)
    first = fingerprint(tmp_path, arrays)
    wide_labels = arrays | {"labels": arrays["labels"].astype(np.uint8)}
    assert fingerprint(tmp_path, wide_labels) == first


# Arrays of the user's own


def test_every_layout_gives_the_same_images(tmp_path: Path) -> None:
    arrays = arrays_of(60)
    channels_last, _ = loaded(tmp_path, arrays)
    transposed = arrays | {"images": arrays["images"].transpose(0, 3, 1, 2)}
    channels_first, _ = loaded(tmp_path, transposed, layout="nchw")
    assert channels_last.image_shape == channels_first.image_shape == (3, 4, 4)
    np.testing.assert_array_equal(channels_last.train.images, channels_first.train.images)
    assert channels_last.fingerprint == channels_first.fingerprint


def test_images_of_channels_last_stand_with_their_channels_first(tmp_path: Path) -> None:
    arrays = arrays_of(60)
    everything, _ = Npz(saved(tmp_path, arrays)).load()
    for channel in range(3):
        np.testing.assert_array_equal(everything.images[:, channel], arrays["images"][..., channel])
    np.testing.assert_array_equal(everything.labels, arrays["labels"])


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_grey_images_get_one_channel_whatever_the_layout(tmp_path: Path, layout: str) -> None:
    arrays = arrays_of(60)
    grey = arrays | {"images": arrays["images"][..., 0]}
    everything, _ = Npz(saved(tmp_path, grey, layout=layout)).load()
    np.testing.assert_array_equal(everything.images[:, 0], grey["images"])
    assert everything.images.shape == (60, 1, 4, 4)


def test_the_test_part_of_a_file_is_kept(tmp_path: Path) -> None:
    own = {f"test_{name}": array for name, array in arrays_of(12).items()}
    data, test = loaded(tmp_path, arrays_of(60) | own)
    np.testing.assert_array_equal(test.images, own["test_images"].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(test.labels, own["test_labels"])
    assert (len(data.train), len(data.val)) == (48, 12)


@pytest.mark.parametrize("kind", ["float16", "float64", "int32", "bool"])
def test_images_that_are_not_of_bytes_become_float32(tmp_path: Path, kind: str) -> None:
    arrays = arrays_of(60)
    everything, _ = Npz(saved(tmp_path, arrays | {"images": arrays["images"].astype(kind)})).load()
    assert everything.images.dtype == np.float32
    expected = arrays["images"].astype(kind).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(everything.images, expected)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_labels_of_any_whole_type_become_int64(tmp_path: Path, kind: str) -> None:
    arrays = arrays_of(60)
    everything, _ = Npz(saved(tmp_path, arrays | {"labels": arrays["labels"].astype(kind)})).load()
    assert everything.labels.dtype == np.int64
    np.testing.assert_array_equal(everything.labels, arrays["labels"])


def test_images_are_mirrored_only_where_the_user_says_so(tmp_path: Path) -> None:
    assert not loaded(tmp_path, arrays_of(60))[0].flippable
    assert loaded(tmp_path, arrays_of(60), flippable=True)[0].flippable


# Files that are refused


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_pickled_arrays_are_refused_and_run_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    trapped = np.array([Trap(marker)] + [None] * 59, dtype=object)
    params = saved(tmp_path, arrays_of(60) | {name: trapped})
    with pytest.raises(UserError, match=r"images\.npz: .*[Oo]bject"):
        Npz(params).load()
    assert not marker.exists()
    np.load(params.path, allow_pickle=True)[name]
    assert marker.exists()  # the trap is one that would have sprung


def test_a_pickle_in_place_of_an_array_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    params = saved(tmp_path, arrays_of(60))
    with zipfile.ZipFile(params.path, "w") as archive:
        for name in ("images", "labels"):
            archive.writestr(f"{name}.npy", pickle.dumps(Trap(marker)))
    with pytest.raises(UserError, match=r"images\.npz"):
        Npz(params).load()
    assert not marker.exists()


def with_(**arrays: Any) -> Arrays:
    return arrays_of(60) | arrays


IMAGES, LABELS = arrays_of(60)["images"], np.arange(60) % 3
REFUSED = {
    "images without height and width": (with_(images=np.zeros((60, 16))), "are .60, 16. and"),
    "images of five axes": (with_(images=np.zeros((60, 2, 4, 4, 3))), "must be images"),
    "one number for images": (with_(images=np.array(3)), "must be images"),
    "a label too few": (with_(labels=LABELS[:59]), "labels are .60, 4, 4, 3. and .59,."),
    "labels of two axes": (with_(labels=LABELS[:, None]), "must be images"),
    "a negative label": (
        with_(labels=LABELS - 1),
        "labels range from -1 to 1; must be integers from 0",
    ),
    "labels of floats": (
        with_(labels=LABELS / 2),
        "labels have the type float64; must be integers from 0",
    ),
    "labels of text": (
        with_(labels=LABELS.astype(str)),
        "labels have the type <U21; must be integers from 0",
    ),
    "NaN": (with_(images=np.where(np.arange(3) == 1, math.nan, IMAGES)), "NaN or infinity"),
    "more than a float32": (with_(images=IMAGES * 1e300), "NaN or infinity"),
    "infinity": (with_(images=np.full((60, 4, 4), math.inf)), "NaN or infinity"),
    "images of words": (
        with_(images=np.full((60, 4, 4), "a")),
        "images have the type <U1; must be uint8 or floats",
    ),
    "a class of four": (with_(labels=np.array([1] * 4 + [0] * 56)), "class 1 has 4 images"),
    "a class of none": (with_(labels=LABELS * 2), "no label is 1"),
    "no images": (with_(images=IMAGES[:0], labels=LABELS[:0]), "images"),
    "test images without labels": (with_(test_images=IMAGES), "lacks test_labels"),
    "test labels without images": (with_(test_labels=LABELS), "lacks test_images"),
    "test images of another size": (
        with_(test_images=IMAGES[:, :3], test_labels=LABELS),
        "test images differ in shape",
    ),
    "a negative test label": (
        with_(test_images=IMAGES, test_labels=LABELS - 1),
        "test_labels range from -1 to 1",
    ),
    "NaN in the test images": (
        with_(test_images=IMAGES * math.nan, test_labels=LABELS),
        "test_images contain NaN",
    ),
    "one class": (with_(labels=LABELS * 0), "all labels are 0; there must be at least two"),
    "black images": (with_(images=IMAGES * 0), "images contain only the value 0; give"),
    "one image again and again": (
        with_(images=np.repeat(IMAGES[:1], 60, axis=0)),
        "images contain the same image each time",
    ),
    "constant test images": (
        with_(test_images=np.full((6, 4, 4, 3), 9, np.uint8), test_labels=LABELS[:6]),
        "test_images contain only the value 9",
    ),
    "a test part without a class": (
        with_(test_images=IMAGES[:5], test_labels=np.zeros(5, int)),
        "the test part has no image of 2 of 3 classes: 1, 2; it must have at least one",
    ),
    "a test part of one channel": (
        with_(test_images=IMAGES[..., :1], test_labels=LABELS),
        "4x4 with 1 channel and 4x4 with 3 channels; all must have the same shape",
    ),
    "test images of another type": (
        with_(test_images=IMAGES.astype(np.float32), test_labels=LABELS),
        r"type or scale from the other images: 0 to 255 \(float32\), and 0 to 255 \(uint8\)",
    ),
    "labels of few test images": (
        with_(test_images=IMAGES[:5], test_labels=np.array([0, 1, 2, 5, 9])),
        "the test labels have classes that the other labels lack, such as 9",
    ),
    "no labels": ({"images": IMAGES}, "lacks labels; it must hold images"),
    "other names": ({"x": IMAGES, "y": LABELS}, "lacks images, labels; it must hold images"),
}


@pytest.mark.parametrize(("arrays", "says"), REFUSED.values(), ids=REFUSED)
def test_wrong_arrays_are_refused_by_a_message_that_names_the_file(
    tmp_path: Path, arrays: Arrays, says: str
) -> None:
    params = saved(tmp_path, arrays)
    with pytest.raises(UserError, match=says) as caught:
        split(Npz(params), params)
    assert params.path in str(caught.value)


HOSTILE = {
    "a label of 10^13": with_(labels=np.where(LABELS == 1, 10**13, LABELS)),
    "images without height": with_(images=IMAGES[:, :0]),
    "images without channels": with_(images=IMAGES[..., :0]),
    "complex images": with_(images=IMAGES * 1j),
    "a test label of 10^13": with_(test_images=IMAGES, test_labels=LABELS * 10**13),
}


@pytest.mark.parametrize("arrays", HOSTILE.values(), ids=HOSTILE)
def test_arrays_that_would_break_what_reads_them_are_refused(
    tmp_path: Path, arrays: Arrays
) -> None:
    params = saved(tmp_path, arrays)
    with pytest.raises(UserError) as caught:
        split(Npz(params), params)
    assert params.path in str(caught.value)


def test_the_axes_of_channels_are_told_apart(tmp_path: Path) -> None:
    wide = np.zeros((60, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=r"channels last; set layout: nhwc"):
        Npz(saved(tmp_path, with_(images=wide), layout="nchw")).load()
    with pytest.raises(UserError, match=r"channels first; put the channels last, or"):
        Npz(saved(tmp_path, with_(images=wide.transpose(0, 3, 1, 2)))).load()


@dataclass
class Given:
    """A data set that is what it is given."""

    everything: Images
    test: Images
    flippable: bool = False
    statistics: None = None

    def check(self) -> None:
        """Nothing is missing."""

    def load(self) -> tuple[Images, Images | None]:
        return self.everything, self.test


PHOTOS = np.clip(np.random.default_rng(0).normal(90, 60, (120, 3, 8, 8)), 0, 255)
SCALES = {
    "bytes": PHOTOS,
    "shares": PHOTOS / 255,
    "signed": PHOTOS / 127.5 - 1,
    "around 0": PHOTOS / 255 - 0.5,
    "standardised": (PHOTOS - 90) / 60,
    "less their mean": PHOTOS - 90,
    "up to 16": PHOTOS / 16,
}


@pytest.mark.parametrize("one", SCALES)
def test_parts_on_different_scales_are_refused_whatever_the_source(one: str) -> None:
    labels = np.arange(120) % 2
    for other, images in SCALES.items():
        source = Given(
            Images(SCALES[one][:80].astype(np.float32), labels[:80]),
            Images(images[80:].astype(np.float32), labels[80:]),
        )
        if other == one:
            split(source, DataParams())
            continue
        with pytest.raises(UserError, match=r"^data: the test images differ in type or scale"):
            split(source, DataParams())


@pytest.mark.parametrize("test", [PHOTOS[80:84], PHOTOS[80:] * 0.7, PHOTOS[80:] * 0.8 + 40])
def test_few_dark_or_pale_test_images_are_on_the_same_scale(test: NDArray[Any]) -> None:
    train = np.concatenate([PHOTOS[:70], PHOTOS[70:75] * 0.2, 0 * PHOTOS[:5]])
    labels = np.arange(80) % 2
    parts = (
        Images(train.astype(np.uint8), labels),
        Images(test.astype(np.uint8), labels[: len(test)]),
    )
    split(Given(*parts), DataParams())


FUNCTION = """
import numpy as np

def images(dark=False, scale=1.0, ragged=False, called=None):
    assert not dark
    images = np.random.default_rng(0).integers(0, 256, (80, 4, 4), np.uint8)
    if ragged:
        return [[1], [1, 2]], [0, 1]
    assert called is None or called is False
    return images[:40], np.arange(40) % 2, images[40:] * scale, np.arange(40) % 2
"""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("{dark: no, scale: 1, called: off}", ""),
        ("{scale: 1.0}", r"0 to 254 \(float32\), and 0 to 255 \(uint8\); all must"),
        ("{scale: 0.5}", "the test images differ in type or scale"),
        ("{ragged: yes}", "returned no arrays: .* must return NumPy arrays"),
    ],
)
def test_a_function_of_ones_own_is_checked_as_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, says: str
) -> None:
    monkeypatch.setattr(plugins, "_allowed", {})
    file = tmp_path / "mine.py"
    file.write_text(FUNCTION)
    plugins.allow([str(file)])
    params = OwnDataParams(name=f"{file}:images", **yamlfile.parse(settings))
    with pytest.raises(UserError, match=says) if says else nullcontext():
        split(OwnData(params), params)


# Which image is where


def test_the_places_say_which_image_is_in_which_part(tmp_path: Path) -> None:
    params = saved(tmp_path, arrays_of(60), subset=30)
    data, test, places = split_with_places(Npz(params), params)
    assert places.images == range(60)
    assert places.labels.tolist() == arrays_of(60)["labels"].tolist()
    everything, _ = Npz(params).load()
    for name, part in (("train", data.train), ("val", data.val), ("test", test)):
        np.testing.assert_array_equal(everything.images[places.parts == name], part.images)
    assert (places.parts == "unused").sum() == 48 - 30


def test_a_test_part_of_its_own_has_its_own_rows() -> None:
    labels, test_labels = np.arange(100) % 4, np.arange(12)[::-1] % 4
    _, _, places = split_with_places(Source(labels, test_labels), DataParams())
    assert places.images == [*range(100), *range(12)]
    assert places.labels.tolist() == [*labels, *test_labels]
    assert places.parts[100:].tolist() == ["test"] * 12
    assert set(places.parts[:100]) == {"train", "val"}


@pytest.mark.parametrize("shares", [{"val": 0.01}, {"test": 0.001}, {"val": 0.5, "test": 0.49}])
def test_a_part_with_fewer_images_than_classes_is_the_users_mistake(
    tmp_path: Path, shares: dict[str, float]
) -> None:
    with pytest.raises(UserError, match=r"val|test"):
        loaded(tmp_path, arrays_of(60), **shares)


def test_a_missing_file_is_refused_without_loading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"away\.npz is not a file; give an \.npz file with images"):
        Npz(NpzParams(path=str(tmp_path / "away.npz"))).check()


def test_a_file_that_is_no_zip_is_refused_without_loading(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", IMAGES)
    with pytest.raises(UserError, match=r"array\.npy is not an \.npz file; .*savez"):
        Npz(NpzParams(path=str(tmp_path / "array.npy"))).check()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_file_is_refused(tmp_path: Path, compressed: bool) -> None:
    file = tmp_path / "images.npz"
    held = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(held, **arrays_of(60))
    damaged = bytearray(held.getvalue())
    damaged[1000] ^= 0xFF  # inside the images
    file.write_bytes(damaged)
    with pytest.raises(UserError, match=r"images\.npz"):
        Npz(NpzParams(path=str(file))).load()


@pytest.mark.parametrize(
    ("counts", "settings"),
    [
        ((1000, 1000, 8), {"subset": 100}),
        ((1000, 8, 1000), {"subset": 400}),
        ((1000, 1000, 5), {"val": 0.1, "test": 0.1}),
    ],
)
def test_a_split_that_would_leave_a_part_without_a_class_is_refused(
    tmp_path: Path, counts: tuple[int, ...], settings: dict[str, float]
) -> None:
    labels = np.repeat(np.arange(3), counts)
    params = saved(
        tmp_path, {"images": np.random.default_rng(0).random((len(labels), 2, 2)), "labels": labels}
    )
    params = params.model_copy(update=settings)
    with pytest.raises(UserError, match="of 3 classes cannot be split") as caught:
        split(Npz(params), params)
    assert ("subset" in str(caught.value)) == ("subset" in settings)


@pytest.mark.parametrize(
    ("images", "values"),
    [
        (np.uint8([[3, 250]]), (0, 255)),
        (np.uint8([[0, 16]]), (0, 16)),
        (np.float32([[0.1, 0.97]]), (0, 1)),
        (np.float32([[0, 255]]), (0, 255)),
        (np.float32([[0, 4000]]), (0, 4000)),
        (np.float32([[-1.5, 2]]), (-1.5, 2)),
        (np.float32([[0, 0]]), (0, 1)),
    ],
)
def test_the_range_of_values_is_a_usual_one_or_their_own(
    images: NDArray[Any], values: tuple[float, float]
) -> None:
    assert value_range(images) == values


def test_classes_are_named_or_called_by_their_labels(tmp_path: Path) -> None:
    arrays = arrays_of(30)
    params = saved(tmp_path, arrays)
    assert split(Npz(params), params)[0].class_names == ("0", "1", "2")
    params = saved(tmp_path, arrays | {"class_names": np.array(["cat", "dog", "emu"])})
    assert split(Npz(params), params)[0].class_names == ("cat", "dog", "emu")
    params = saved(tmp_path, arrays | {"class_names": np.array(["cat", "dog"])})
    with pytest.raises(UserError, match="there are 2 class_names, and 3 classes"):
        split(Npz(params), params)


def test_a_function_may_name_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {**arrays_of(30), "class_names": ["cat", "dog", "emu"]}
    monkeypatch.setattr(plugins, "load", lambda name: lambda: named)
    params = OwnDataParams(name="mine.py:mine")
    assert split(OwnData(params), params)[0].class_names == ("cat", "dog", "emu")
