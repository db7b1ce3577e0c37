"""The exported Python file: plain layers that compute the same, and `predict`."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evonas.data.image_folder import read_image
from evonas.export.network import TrainedNetwork, export
from tests.unit.export import spaces
from tests.unit.export.conftest import Make

SPACES: list[tuple[Any, dict[str, Any]]] = [
    ("nasbench201", {"channels": 2, "cells": 2}),
    ("darts", {"channels": 2, "cells": 3, "auxiliary": True}),
    ("macro", {"phases": 2, "channels": 2}),
    ("chain", {"stages": [[4, 2, 1], [6, 2, 2]], "stem": 4}),
    ("channels", {"stages": 3, "widths": [2, 4], "block": "inverted"}),
    (spaces.plain, {}),
    (spaces.with_classes, {}),
    (spaces.tied, {}),
]


def taken(network: TrainedNetwork, folder: Path) -> tuple[str, ModuleType]:
    """The text of an exported file, and the file imported."""
    file, _ = export(network, "python", folder / "taken.py")
    module = ModuleType("taken")
    module.__file__ = str(file)
    exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
    return file.read_text(), module


def assert_equal(network: TrainedNetwork, module: ModuleType) -> None:
    images = torch.rand(4, *network.about["image_shape"]) - 0.5
    with torch.no_grad():
        assert torch.equal(module.EvolvedNetwork.load()(images), network.build()(images))


@pytest.mark.parametrize(("space", "settings"), SPACES)
def test_the_layers_are_written_as_a_person_would(
    make: Make, tmp_path: Path, space: Any, settings: dict[str, Any]
) -> None:
    network = make(space, **settings)
    text, module = taken(network, tmp_path)
    assert_equal(network, module)
    code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    assert not re.search(r"\b(pick|choose|CHOICES|SETTINGS|candidates|lambda)\b", code)
    assert max(map(len, code.splitlines())) <= 100
    fresh = module.EvolvedNetwork()  # may be trained anew
    fresh(torch.rand(2, *network.about["image_shape"]))


def test_a_plain_network_is_a_list_of_layers(make: Make, tmp_path: Path) -> None:
    text, _ = taken(make(spaces.plain, genes=(0, 0, 1, 0)), tmp_path)
    assert "class Net" not in text
    listed = text.partition("self.network = ")[2].partition("def forward")[0]
    layer = (
        "nn.Sequential( nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), )"
    )
    assert " ".join(listed.split()) == (
        "nn.Sequential( nn.Conv2d(1, 4, 3, padding=1), "
        f"*( {layer} for _ in range(2) ), nn.Identity(), {layer}, "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), )"
    )


def test_what_cannot_be_written_as_layers_keeps_the_genomes_choices(
    make: Make, tmp_path: Path
) -> None:
    for space in (spaces.with_a_lambda, spaces.within):
        network = make(space)
        text, module = taken(network, tmp_path)
        assert_equal(network, module)
        assert "CHOICES = " in text


FOLDER = ("cats", 'a "dog"')  # names of classes


@pytest.fixture
def photographs(make: Make, tmp_path: Path) -> ModuleType:
    """What is taken away of a network for photographs."""
    network = make(spaces.plain, shape=(3, 8, 8), class_names=FOLDER)
    return taken(network, tmp_path)[1]


def answers(module: ModuleType, images: torch.Tensor) -> list[str]:
    with torch.no_grad():
        logits = module.EvolvedNetwork.load()(module.normalised(images))
    return [FOLDER[i] for i in logits.argmax(1).tolist()]


def pictures(folder: Path) -> list[Path]:
    """Pictures of all kinds, each other than it seems."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    large = Image.fromarray(np.kron(np.asarray(photo), np.ones((8, 8, 1), np.uint8)))
    turned = Image.Exif()
    turned[274] = 6  # lies on its side
    deep = Image.fromarray((np.asarray(photo)[..., 0].astype(np.uint16) << 8) + 5)
    photo.save(folder / "plain.png")
    large.save(folder / "large.jpg")
    photo.save(folder / "turned.jpg", exif=turned)
    photo.convert("P").save(folder / "palette.gif")
    Image.merge("RGBA", [*photo.split(), photo.split()[0]]).save(folder / "clear.png")
    deep.save(folder / "deep.png")
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".gif"))


def test_pictures_are_read_as_the_data_set_reads_them(
    photographs: ModuleType, tmp_path: Path
) -> None:
    paths = pictures(tmp_path)
    assert len(paths) == 6
    read = torch.tensor(np.stack([read_image(path, 8, "RGB") for path in paths]))
    same = photographs.as_images(paths, photographs.IMAGE_SHAPE, photographs.VALUES)
    assert torch.equal(same, read)
    assert photographs.predict([str(path) for path in paths]) == answers(photographs, read)
    assert photographs.predict(paths[0]) == answers(photographs, read[:1])[0]
    with Image.open(tmp_path / "plain.png") as picture:
        array = np.asarray(picture)
        expected = photographs.predict(tmp_path / "plain.png")
        assert photographs.predict(picture) == photographs.predict(array) == expected


def test_arrays_of_any_layout_and_scale_are_the_same_images(photographs: ModuleType) -> None:
    images = torch.randint(0, 256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images[3] //= 128  # nearly black, in bytes
    images = images.to(torch.uint8)
    expected = photographs.normalised(images)

    def read(given: Any) -> torch.Tensor:
        found = photographs.as_images(given, photographs.IMAGE_SHAPE, photographs.VALUES)
        return torch.as_tensor(photographs.normalised(found))

    floats = images.float()
    floats[3] += 2  # in floats, an image from 0 to 1 is taken for one of shares
    for same in (images, images.numpy(), images.movedim(1, 3).numpy()):
        assert torch.equal(read(same), expected)
        assert photographs.predict(same) == answers(photographs, images)
    assert torch.equal(read(floats), photographs.normalised(floats))
    for shares in (floats / 255, (floats / 255).double().numpy(), floats.movedim(1, 3) / 255):
        torch.testing.assert_close(read(shares), read(floats))
    assert photographs.predict(images[5]) == answers(photographs, images)[5]


@pytest.mark.parametrize("values", [(0, 16), (0, 1), (0, 4000)])
def test_data_of_any_range_take_the_usual_scales(
    make: Make, tmp_path: Path, values: tuple[float, float]
) -> None:
    _, module = taken(make(spaces.plain, values=values), tmp_path)
    assert values == module.VALUES
    shares = torch.rand(20, 1, 8, 8)
    shares[:, :, 0, 0] = 1
    expected = module.normalised(shares * values[1])
    scales = (1, 255) if values[1] < 100 else (1,)
    for scale in scales:
        torch.testing.assert_close(module.normalised(shares * scale), expected)
    assert module.predict(shares.numpy()) == module.predict(shares * values[1])


@pytest.mark.parametrize(
    ("values", "images"),
    [
        ((0, 255), torch.randn(1, 8, 8)),
        ((0, 255), 60000 * torch.rand(1, 8, 8)),
        ((-2, 2), 255 * torch.rand(1, 8, 8)),
        ((0, 1), torch.randn(1, 8, 8)),
    ],
)
def test_what_cannot_be_images_of_the_data_is_refused(
    make: Make, tmp_path: Path, values: tuple[float, float], images: torch.Tensor
) -> None:
    _, module = taken(make(spaces.plain, values=values), tmp_path)
    with pytest.raises(ValueError, match="as they were in the data, not yet normalised"):
        module.predict(images)
    for wrong in (torch.rand(2, 5, 5), torch.rand(9)):
        with pytest.raises(ValueError, match="are no images of"):
            module.predict(wrong)


def test_a_picture_says_nothing_where_the_data_are_no_bytes(make: Make, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    for settings in ({"values": (-1, 1)}, {"shape": (2, 8, 8)}):
        _, module = taken(make(spaces.plain, **settings), tmp_path)
        with pytest.raises(ValueError, match="give an array of images as they were in the data"):
            module.predict(tmp_path / "x.png")
