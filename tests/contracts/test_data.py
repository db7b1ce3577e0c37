"""The contracts of data sets, over everything registered, and over some broken on purpose."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evonas import registry
from evonas.data.cifar import Cifar10, Cifar100
from evonas.data.dataset import DataParams, Images, PathParams
from evonas.data.idx import STEMS
from evonas.own import OwnData, OwnDataParams
from evonas.testing import data as contracts
from evonas.testing.data import CONTRACTS, Make, maker
from tests.helpers.cifar import noise, write_binary

Contract = Callable[[Make], None]
contract = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)


def write_idx(folder: Path) -> None:
    for stem, count in zip(STEMS, (200, 200, 40, 40), strict=True):
        if "images" in stem:
            pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
            content = struct.pack(">4BIII", 0, 0, 8, 3, count, 28, 28) + pixels.tobytes()
        else:
            labels = (np.arange(count) % 10).astype(np.uint8)
            content = struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes()
        (folder / stem).write_bytes(content)


def write_pictures(folder: Path) -> None:
    for i, pixels in enumerate(noise(24, 3)[0]):
        file = folder / f"class{i % 3}" / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file)


def write_arrays(file: Path) -> None:
    images, labels = noise(60, 3)
    test_images, test_labels = noise(12, 3)
    np.savez(
        file,
        images=images.transpose(0, 2, 3, 1) / 255,
        labels=labels,
        test_images=test_images.transpose(0, 2, 3, 1) / 255,
        test_labels=test_labels,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Make]:
    """A registered data set by its name, with small files where it reads some."""

    @cache
    def make(name: str) -> Make:
        folder, settings = tmp_path_factory.mktemp(name), dict[str, Any]()
        kind = registry.load("data", name)
        if name in ("mnist", "fashion_mnist"):
            write_idx(folder)
        elif issubclass(kind, Cifar10 | Cifar100):
            for file in kind.files:
                images, labels = noise(5 * kind.classes, kind.classes)
                write_binary(folder / file, (images, [labels] * kind.label_bytes))
        elif name == "image_folder":
            write_pictures(folder)
        elif name == "npz":
            folder /= "arrays.npz"
            write_arrays(folder)
        if issubclass(kind.Params, PathParams):
            settings = {"path": str(folder)}
        if name == "cifar100":
            settings["val"] = 0.5
        return maker(kind, kind.Params(**settings))

    return make


@contract
@pytest.mark.parametrize("name", registry.names("data"))
def test_every_data_set_keeps_every_contract(
    name: str, contract: Contract, made: Callable[[str], Make]
) -> None:
    contract(made(name))


@contract
def test_a_data_set_of_ones_own_keeps_every_contract(
    contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evonas import plugins

    monkeypatch.setattr(plugins, "_allowed", {})
    file = tmp_path / "noise.py"
    file.write_text(
        "import numpy as np\n"
        "def noise(n=60):\n"
        "    rng = np.random.default_rng(0)\n"
        "    return rng.random((n, 9, 7, 3)), np.arange(n) % 3\n"
    )
    plugins.allow([str(file)])
    contract(maker(OwnData, OwnDataParams(name=f"{file}:noise", n=45)))  # type: ignore[call-arg]


class SourceParams(DataParams):
    path: str = ""


class Source:
    """A data set that keeps all its promises."""

    flippable = False
    statistics: Any = ((0.5, 0.5), (0.25, 0.25))
    count = 0

    def __init__(self, params: SourceParams) -> None:
        self.path = params.path

    def check(self) -> None:
        if self.path:
            from evonas.core import UserError

            raise UserError(f"nothing at {self.path}")

    def load(self) -> tuple[Images, Images | None]:
        self.check()
        return self.part(40), self.part(20)

    def part(self, count: int) -> Images:
        images = np.random.default_rng(0).integers(0, 256, (count, 2, 6, 6), np.uint8)
        return Images(images, np.arange(count) % 2)


class Shuffled(Source):
    def part(self, count: int) -> Images:
        Source.count += 1
        part = super().part(count)
        return Images(part.images + np.uint8(Source.count), part.labels)


class Doubles(Source):
    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(part.images.astype(np.float64), part.labels)


class Infinite(Source):
    statistics = None

    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(np.full(part.images.shape, np.inf, np.float32), part.labels)


class Unlabelled(Source):
    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(part.images, part.labels[:-1])


class Small(Source):
    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(part.images, part.labels.astype(np.int32))


class FromOne(Source):
    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(part.images, part.labels + 1)


class Gap(Source):
    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(part.images, part.labels * 2)


class OtherTest(Source):
    def load(self) -> tuple[Images, Images | None]:
        everything, test = super().load()
        assert test is not None
        return everything, Images(test.images[:, :, :3], test.labels)


class NewInTest(Source):
    def load(self) -> tuple[Images, Images | None]:
        everything, test = super().load()
        assert test is not None
        return everything, Images(test.images, test.labels + 1)


class Eager(Source):
    def check(self) -> None:
        super().check()
        self.part(1000)


class Silent(Source):
    def check(self) -> None:
        pass


class Grey(Source):
    statistics = ((0.5,), (0.25,))


class Bytes(Source):
    statistics = ((127.0, 127.0), (60.0, 60.0))


class Rare(Source):
    """Has too few images of a class for every part to have its share."""

    def part(self, count: int) -> Images:
        part = super().part(count)
        return Images(part.images, np.where(np.arange(count) < count - 1, 0, 1))


class Restless(Source):
    def part(self, count: int) -> Images:
        part = super().part(count)
        noise = np.random.default_rng().integers(0, 2, part.images.shape, np.uint8)
        return Images(part.images ^ noise, part.labels)


class Lucky(Source):
    def part(self, count: int) -> Images:
        np.random.random()  # noqa: NPY002
        return super().part(count)


BROKEN = [
    (Shuffled, contracts.to_load_twice_gives_the_same, "the images differ"),
    (Doubles, contracts.images_are_bytes_or_floats, "of type float64"),
    (Infinite, contracts.images_are_bytes_or_floats, "not finite"),
    (Unlabelled, contracts.every_image_has_a_label, "not one label for each"),
    (Small, contracts.every_image_has_a_label, "of type int32"),
    (FromOne, contracts.labels_have_no_gaps, "begin at 1"),
    (Gap, contracts.labels_have_no_gaps, "a class has no image"),
    (OtherTest, contracts.the_test_part_is_of_the_same_kind, "differ in shape"),
    (NewInTest, contracts.the_test_part_is_of_the_same_kind, "in the test part alone"),
    (Eager, contracts.check_reads_no_images, "check takes"),
    (Silent, contracts.missing_files_are_a_users_error, "check does not say"),
    (Grey, contracts.statistics_are_one_pair_a_channel, "1 numbers, 2 channels"),
    (Bytes, contracts.statistics_are_one_pair_a_channel, "no shares of 255"),
    (Rare, contracts.the_split_is_stratified, "UserError: data: class 1 has 1 image;"),
    (Restless, contracts.the_split_is_repeatable, "two splits of the same settings differ"),
    (Lucky, contracts.other_generators_are_left_alone, "draws from a global generator"),
]


@contract
def test_a_sound_data_set_keeps_every_contract(contract: Contract) -> None:
    contract(maker(Source, SourceParams()))


@pytest.mark.parametrize(("kind", "contract", "what"), BROKEN)
def test_a_data_set_that_breaks_a_contract_is_caught_for_that(
    kind: type[Source], contract: Contract, what: str
) -> None:
    with pytest.raises(AssertionError, match=what):
        contract(maker(kind, SourceParams()))


def test_every_contract_is_broken_by_one() -> None:
    assert {contract for _, contract, _ in BROKEN} == set(CONTRACTS)
