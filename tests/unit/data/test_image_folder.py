"""The user's own pictures, a sub-folder a class; real ones where CIFAR-10 is at hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from evonas.cli import app
from evonas.core import UserError
from evonas.data.dataset import split, split_with_places
from evonas.data.image_folder import ImageFolder, ImageFolderParams, read_image
from tests.helpers.cifar import cifar10, needs_cifar10, noise

RED, GREEN, BLUE, WHITE, BLACK = (
    *((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    *((255, 255, 255), (0, 0, 0)),
)


def write_images(
    folder: Path, names: Sequence[str] = ("cat", "dog"), n: int = 5, suffix: str = ".png"
) -> NDArray[np.uint8]:
    """`n` images of noise a class, which are given back, (classes, n, 3, 32, 32)."""
    images = noise(len(names) * n, 1)[0].reshape(len(names), n, 3, 32, 32)
    for name, of_class in zip(names, images, strict=True):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(of_class):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name / f"{i}{suffix}")
    return images


def source(folder: Path, **params: Any) -> ImageFolder:
    return ImageFolder(ImageFolderParams(path=str(folder), **params))


def refused(folder: Path) -> str:
    """What the user is told without an image being read."""
    with pytest.raises(UserError) as told:
        source(folder).check()
    assert "; " in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


def colours(image: Image.Image, tmp_path: Path, name: str = "a.png", **save: Any) -> list[Any]:
    """The colours of the four quarters of an image, once saved and read, 8x8."""
    image.save(tmp_path / name, **save)
    pixels = read_image(tmp_path / name, 8, "RGB")
    return [tuple(pixels[:, y, x].tolist()) for y in (1, 6) for x in (1, 6)]


def quarters(*four: tuple[int, ...], mode: str = "RGB", width: int = 16) -> Image.Image:
    """An image of four colours: upper left, upper right, lower left, lower right."""
    image = Image.new(mode, (2, 2))
    image.putdata(four)
    return image.resize((width, 16), Image.Resampling.NEAREST)


# Folders


@needs_cifar10
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG", ".tif"])
def test_real_images_come_back_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    images, labels = cifar10()
    rows = np.argsort(labels[:200], kind="stable")
    for i in rows:
        (tmp_path / f"class {labels[i]}").mkdir(exist_ok=True)
        pixels = Image.fromarray(images[i].transpose(1, 2, 0))
        pixels.save(tmp_path / f"class {labels[i]}" / f"{i:04}{suffix}")
    source(tmp_path).check()
    everything, test = source(tmp_path).load()
    assert everything.images.tobytes() == images[rows].tobytes()
    assert everything.labels.tolist() == labels[rows].tolist()
    assert test is None


def test_a_folder_without_parts_is_split_and_normalised_by_its_own_statistics(
    tmp_path: Path,
) -> None:
    images = write_images(tmp_path, n=10)
    params = ImageFolderParams(path=str(tmp_path))
    data, test = split(ImageFolder(params), params)
    assert [len(data.train), len(data.val), len(test)] == [12, 4, 4]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert data.image_shape == (3, 32, 32)
    assert data.mean == pytest.approx(data.train.images.mean(axis=(0, 2, 3)))
    assert {image.tobytes() for image in images.reshape(20, -1)} == {
        image.tobytes() for part in (data.train, data.val, test) for image in part.images
    }


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_test_or_else_val_is_the_test_part(tmp_path: Path, name: str) -> None:
    train = write_images(tmp_path / "train", n=6)
    held_out = write_images(tmp_path / name, n=1)
    (tmp_path / "labels").mkdir()  # whatever else is there
    everything, test = source(tmp_path).load()
    assert everything.images.tobytes() == train.tobytes()
    assert test is not None
    assert test.images.tobytes() == held_out.tobytes()
    assert test.labels.tolist() == [0, 1]


def test_val_is_split_together_with_train_where_test_is_there_too(tmp_path: Path) -> None:
    train = write_images(tmp_path / "train", n=4)
    val = write_images(tmp_path / "val", n=2)
    held_out = write_images(tmp_path / "test", n=3)
    everything, test = source(tmp_path).load()
    assert everything.images.tobytes() == np.concatenate([train, val], axis=1).tobytes()
    assert everything.labels.tolist() == [0] * 6 + [1] * 6
    assert test is not None
    assert test.images.tobytes() == held_out.tobytes()


def test_train_may_be_a_class(tmp_path: Path) -> None:
    write_images(tmp_path, ["bus", "train"])
    everything, test = source(tmp_path).load()
    assert everything.labels.tolist() == [0] * 5 + [1] * 5
    assert test is None


def test_a_folder_beside_train_that_is_no_part_is_refused_not_taken_for_a_class(
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "train", n=6)
    write_images(tmp_path / "evaluation", n=6)
    assert "are evaluation; only test and val" in refused(tmp_path)


def test_classes_and_files_are_sorted_by_name_and_not_as_the_disk_has_them(tmp_path: Path) -> None:
    names = ["b", "a", "C", "10", "9"]
    images = write_images(tmp_path, names)
    folder = source(tmp_path)
    everything, _ = folder.load()
    in_order = [images[names.index(name)] for name in ("10", "9", "C", "a", "b")]
    assert folder.class_names == ["10", "9", "C", "a", "b"]
    assert everything.images.tobytes() == np.stack(in_order).tobytes()


def test_images_deeper_in_a_class_and_behind_links_are_found(tmp_path: Path) -> None:
    images = write_images(tmp_path / "set", n=5)
    (tmp_path / "set/cat").rename(tmp_path / "elsewhere")
    (tmp_path / "set/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/dog/images").mkdir()
    (tmp_path / "set/dog/3.png").rename(tmp_path / "set/dog/images/3.png")
    (tmp_path / "set/dog/round").symlink_to(tmp_path / "set")  # is not followed
    everything, _ = source(tmp_path / "set").load()
    order = [0, 1, 2, 4, 3]
    assert everything.images.tobytes() == np.stack([images[0], images[1, order]]).tobytes()


def test_hidden_files_and_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    images = write_images(tmp_path)
    for name in (".DS_Store", "._0.png", "Thumbs.db", "notes.txt", "png"):
        (tmp_path / "cat" / name).write_bytes(b"no image")
    for folder in (".git", "cat/.ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(b"no image")
    (tmp_path / "README.md").write_text("cats and dogs")
    everything, _ = source(tmp_path).load()
    assert everything.images.tobytes() == images.tobytes()


def test_the_settings_are_size_grey_and_flippable(tmp_path: Path) -> None:
    write_images(tmp_path)
    plain = source(tmp_path)
    assert plain.load()[0].images.shape == (10, 3, 32, 32)
    assert plain.flippable
    small = source(tmp_path, size=12, grey=True, flippable=False)
    assert small.load()[0].images.shape == (10, 1, 12, 12)
    assert not small.flippable


def test_images_that_do_not_fit_into_memory_are_told(tmp_path: Path) -> None:
    write_images(tmp_path)
    large = source(tmp_path)
    large.size = 2**24
    with pytest.raises(UserError, match=r"^data\.size: 10 images of this size do not fit into mem"):
        large.load()


def test_wrong_folders_are_refused_before_an_image_is_read(tmp_path: Path) -> None:
    assert "away is not a folder; give a folder" in refused(tmp_path / "away")
    assert "too few sub-folders" in refused(tmp_path)
    write_images(tmp_path / "one", ["train"])
    assert f"too few sub-folders in {tmp_path / 'one'}: train" in refused(tmp_path / "one")
    write_images(tmp_path / "few")
    (tmp_path / "few/dog/3.png").unlink()
    assert "class dog has 4 images; each class must have at least 5" in refused(tmp_path / "few")
    write_images(tmp_path / "none")
    (tmp_path / "none/ant").mkdir()
    assert "class ant has 0 images" in refused(tmp_path / "none")
    assert "0.png is not a folder" in refused(tmp_path / "few/dog/0.png")


@pytest.mark.parametrize("others", [["cat"], ["cat", "cow"], ["cat", "dog", "cow"]])
def test_a_test_part_of_other_classes_is_refused(tmp_path: Path, others: list[str]) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", others)
    told = refused(tmp_path)
    assert "too few sub-folders" in told or "is not in both" in told
    assert str(tmp_path / "test") in told


def test_a_class_without_a_test_image_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", n=1)
    (tmp_path / "test/dog/0.png").unlink()
    assert "class dog has 0 images; each class must have at least 1" in refused(tmp_path)


# Images


def test_the_shorter_side_is_scaled_and_the_middle_cut_out(tmp_path: Path) -> None:
    wide = Image.new("RGB", (60, 20), RED)
    wide.paste(GREEN, (20, 0, 40, 20))
    assert set(colours(wide, tmp_path)) == {GREEN}
    assert set(colours(wide.transpose(Image.Transpose.ROTATE_90), tmp_path)) == {GREEN}
    assert set(colours(Image.new("RGB", (1, 2000), BLUE), tmp_path)) == {BLUE}


def test_what_a_scaled_image_shows_is_the_mean_of_what_was_there(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 8, "L").astype(int)
    assert abs(pixels - 127).max() <= 8


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    got = colours(quarters(RED, GREEN, BLUE, WHITE), tmp_path, exif=exif)
    assert got == [BLUE, RED, WHITE, GREEN]


def test_a_large_jpeg_looks_like_the_same_image_as_a_png(tmp_path: Path) -> None:
    image = quarters(RED, GREEN, BLUE, WHITE).resize((640, 480), Image.Resampling.BICUBIC)
    for name in ("a.jpg", "a.png"):
        image.save(tmp_path / name, quality=95)
    jpeg, png = (read_image(tmp_path / name, 16, "RGB") for name in ("a.jpg", "a.png"))
    assert np.abs(jpeg.astype(int) - png).mean() < 3


def test_a_palette_shows_its_colours_and_the_transparent_turns_white(tmp_path: Path) -> None:
    four = quarters(RED, GREEN, BLUE, BLACK).quantize(4, dither=Image.Dither.NONE)
    assert colours(four, tmp_path) == [RED, GREEN, BLUE, BLACK]
    black = four.getpixel((12, 12))
    got = colours(four, tmp_path, transparency=black)
    assert got == [RED, GREEN, BLUE, WHITE]
    assert colours(four, tmp_path, "a.gif", transparency=black) == got


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    image = quarters((*RED, 255), (*GREEN, 0), (0, 0, 0, 128), (*BLUE, 255), mode="RGBA")
    assert colours(image, tmp_path) == [RED, WHITE, (127, 127, 127), BLUE]
    grey = quarters((0, 255), (0, 0), (100, 255), (255, 255), mode="LA")
    assert colours(grey, tmp_path) == [BLACK, WHITE, (100,) * 3, WHITE]


def test_other_modes_show_what_they_hold(tmp_path: Path) -> None:
    four = quarters(WHITE, BLACK, BLACK, WHITE)
    assert colours(four.convert("1"), tmp_path) == [WHITE, BLACK, BLACK, WHITE]
    assert colours(four.convert("L"), tmp_path, "a.pgm") == [WHITE, BLACK, BLACK, WHITE]
    cmyk = colours(four.convert("CMYK"), tmp_path, "a.tif")
    assert cmyk == [WHITE, BLACK, BLACK, WHITE]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_grey_of_16_bits_keeps_its_high_byte(tmp_path: Path, name: str) -> None:
    values = np.kron(np.array([[0, 0x1234], [0x80FF, 0xFFFF]], np.uint16), np.ones((8, 8)))
    got = colours(Image.fromarray(values.astype(np.uint16)), tmp_path, name)
    assert [colour[0] for colour in got] == [0, 0x12, 0x80, 0xFF]


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.ones((8, 8), np.float32), "floats"),
        (np.full((8, 8), 2**20, np.int32), "16 bits"),
        (np.full((8, 8), 252, np.int32), "none is above 252"),
        (np.full((8, 8), 4032, np.uint16), "none is above 4032"),
    ],
)
def test_pixels_without_a_known_white_are_refused(
    tmp_path: Path, pixels: NDArray[Any], says: str
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=rf"a\.tif cannot be read: .*{says}"):
        read_image(tmp_path / "a.tif", 8, "RGB")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".bmp", ".tif", ".ppm"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9])
def test_an_image_cut_short_is_named_in_a_line(tmp_path: Path, suffix: str, kept: float) -> None:
    write_images(tmp_path, suffix=suffix)
    file = tmp_path / f"dog/2{suffix}"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(UserError, match=rf"dog/2\{suffix} cannot be read: ") as told:
        source(tmp_path).load()
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_image_is_read_or_named_and_raises_nothing_else(tmp_path: Path) -> None:
    image = Image.fromarray(noise(1, 1)[0][0].transpose(1, 2, 0))
    rng = np.random.default_rng(0)
    refused = 0
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tif", "ppm"):
        file = tmp_path / f"a.{suffix}"
        image.save(file)
        whole = file.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, 200, 4):
                damaged[at] = rng.integers(256)
            file.write_bytes(damaged)
            try:
                read = read_image(file, 8, "RGB")
            except UserError:
                refused += 1
            else:
                assert read.shape == (3, 8, 8)
    assert refused > 100


def test_damaged_images_are_named_all_at_once_of_both_parts(tmp_path: Path) -> None:
    write_images(tmp_path / "train", n=12)
    write_images(tmp_path / "test", n=2)
    for name in ("train/dog/0", "train/dog/11", "test/cat/1"):
        (tmp_path / f"{name}.png").write_bytes(b"no image\x1b[2J")
    os.rename(tmp_path / "train/dog/11.png", tmp_path / "train/dog/11\n\x1b[2J.png")
    with pytest.raises(UserError) as told:
        source(tmp_path).load()
    lines = str(told.value).splitlines()
    reason = "cannot be read: it is in no known format"
    assert lines == [
        f"{tmp_path}: 3 of 28 images cannot be read; replace or remove them",
        f"{tmp_path}/train/dog/0.png {reason}",
        f"{tmp_path}/train/dog/11\\n\\x1b[2J.png {reason}",
        f"{tmp_path}/test/cat/1.png {reason}",
    ]
    for file in (tmp_path / "train/cat").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError) as told:
        source(tmp_path).load()
    lines = str(told.value.within("data")).splitlines()
    assert "15 of 28 images cannot be read; replace or remove them; the first 10:" in lines[0]
    assert len(lines) == 11


@pytest.mark.parametrize("command", [("validate", "--data"), ("estimate",)])
def test_damaged_images_are_named_before_a_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_images(tmp_path / "pictures", n=10)
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "{name: x, space: {name: chain}, data: {name: image_folder, path: pictures, size: 8}, "
        "strategy: {name: random}, evaluator: {name: train}, budget: {epochs: 1}, "
        "objectives: [{name: val_error}], stop: {generations: 1}}"
    )
    if command[0] == "validate":
        result = CliRunner().invoke(app, [*command, str(file)])
        said = "data: 12 training, 4 validation and 4 test images, 3x8x8, of 2 classes"
        assert result.stdout.splitlines()[0] == said
    for name in ("cat/0", "dog/1"):
        (tmp_path / f"pictures/{name}.png").write_bytes(b"")
    result = CliRunner().invoke(app, [*command, str(file)])
    assert result.exit_code == 2, result.output
    first, *others = result.stderr.splitlines()
    assert first.endswith("pictures: 2 of 20 images cannot be read; replace or remove them")
    assert [line.partition("pictures/")[2][:9] for line in others] == ["cat/0.png", "dog/1.png"]


def test_the_places_have_the_names_of_the_files(tmp_path: Path) -> None:
    write_images(tmp_path / "train", n=6)
    write_images(tmp_path / "test", n=1)
    os.rename(tmp_path / "test/dog/0.png", os.fsencode(tmp_path) + b"/test/dog/\xff.png")
    params = ImageFolderParams(path=str(tmp_path))
    _, _, places = split_with_places(ImageFolder(params), params)
    assert places.images[:2] == ["train/cat/0.png", "train/cat/1.png"]
    assert places.images[-2:] == ["test/cat/0.png", "test/dog/\\xff.png"]
    assert places.labels.tolist() == [0] * 6 + [1] * 6 + [0, 1]
    assert places.parts[-2:].tolist() == ["test", "test"]


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    for limit in (1000, 100):  # where Pillow warns, and where it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=r"cat/0\.png cannot be read: .*bomb"):
            source(tmp_path).load()


def test_a_file_that_would_start_a_program_is_not_what_its_name_says(tmp_path: Path) -> None:
    write_images(tmp_path)
    quarters(RED, GREEN, BLUE, WHITE).save(tmp_path / "dog/4.eps")  # Ghostscript would draw it
    os.replace(tmp_path / "dog/4.eps", tmp_path / "dog/4.png")
    with pytest.raises(UserError, match=r"dog/4\.png cannot be read: it is in no known format"):
        source(tmp_path).load()
