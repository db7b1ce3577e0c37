"""CIFAR-10 and CIFAR-100: the binary version, and pickles that run nothing."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.data.cifar import (
    Cifar10,
    Cifar10Params,
    Cifar100,
    Cifar100Params,
    read_binary,
    read_pickle,
)
from evonas.data.dataset import split
from tests.cifar import (
    cifar10,
    needs_cifar10,
    noise,
    python2_pickle,
    write_binary,
    write_python,
)

Write = Callable[..., None]
Parts = list[tuple[NDArray[np.uint8], NDArray[np.int64]]]
VERSIONS = [
    pytest.param(write_binary, "cifar-10-batches-bin", ".bin", id="binary"),
    pytest.param(write_python, "cifar-10-batches-py", "", id="python"),
]


def write_cifar10(folder: Path, write: Write, suffix: str, parts: Parts) -> None:
    """Five files to train on and one to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, (images, labels) in zip(names, parts, strict=True):
        write(folder / f"{name}{suffix}", (images, [labels]))


def source(folder: Path) -> Cifar10:
    return Cifar10(Cifar10Params(path=str(folder)))


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """A whole file of the python version."""
    images, labels = noise(20, 10)
    write_python(tmp_path / "test_batch", (images, [labels]))
    return tmp_path / "test_batch"


@needs_cifar10
@pytest.mark.parametrize(("write", "below", "suffix"), VERSIONS)
def test_real_images_come_back_byte_for_byte(
    tmp_path: Path, write: Write, below: str, suffix: str
) -> None:
    images, labels = cifar10()
    parts = [(images[i : i + 50], labels[i : i + 50]) for i in range(0, 300, 50)]
    write_cifar10(tmp_path / below, write, suffix, parts)
    source(tmp_path).check()
    everything, test = source(tmp_path).load()
    assert everything.images.tobytes() == images[:250].tobytes()
    assert test.images.tobytes() == images[250:300].tobytes()
    assert everything.images.shape == (250, 3, 32, 32)
    assert everything.labels.tolist() == labels[:250].tolist()
    assert test.labels.tolist() == labels[250:300].tolist()


@needs_cifar10
def test_the_published_statistics_are_those_of_real_images() -> None:
    images, _ = cifar10()
    pixels = images / 255
    assert pixels.mean(axis=(0, 2, 3)) == pytest.approx(Cifar10.statistics[0], abs=0.01)
    assert pixels.std(axis=(0, 2, 3)) == pytest.approx(Cifar10.statistics[1], abs=0.01)


@pytest.mark.parametrize("below", ["", "here"])
@pytest.mark.parametrize(("write", "folder", "suffix"), VERSIONS)
def test_both_versions_are_read_from_the_folder_of_the_files_or_the_one_above(
    tmp_path: Path, write: Write, folder: str, suffix: str, below: str
) -> None:
    parts = [noise(n, 10) for n in range(10, 16)]
    write_cifar10(tmp_path / folder, write, suffix, parts)
    everything, test = source(tmp_path / folder if below else tmp_path).load()
    assert (everything.images == np.concatenate([images for images, _ in parts[:5]])).all()
    assert everything.labels.tolist() == [i % 10 for n in range(10, 15) for i in range(n)]
    assert (test.images == parts[5][0]).all()


@pytest.mark.parametrize(
    ("write", "below", "suffix"),
    [
        pytest.param(write_binary, "cifar-100-binary", ".bin", id="binary"),
        pytest.param(
            lambda file, batch: write_python(file, batch, ["coarse_labels", "fine_labels"]),
            "cifar-100-python",
            "",
            id="python",
        ),
    ],
)
def test_the_fine_labels_of_cifar100_are_used(
    tmp_path: Path, write: Write, below: str, suffix: str
) -> None:
    (tmp_path / below).mkdir()
    parts = {"train": noise(300, 100), "test": noise(100, 100)}
    for name, (images, fine) in parts.items():
        write(tmp_path / below / f"{name}{suffix}", (images, [fine // 5, fine]))
    params = Cifar100Params(path=str(tmp_path))
    everything, test = Cifar100(params).load()
    for part, (images, fine) in zip((everything, test), parts.values(), strict=True):
        assert (part.images == images).all()
        assert part.labels.tolist() == fine.tolist()
    data, _ = split(Cifar100(params), params.model_copy(update={"val": 0.4}))
    assert data.classes == 100
    assert data.mean == pytest.approx((255 * 0.5071, 255 * 0.4865, 255 * 0.4409))
    assert data.std == pytest.approx((255 * 0.2673, 255 * 0.2564, 255 * 0.2762))
    assert data.flippable


def test_a_pickle_of_python_3_and_numpy_2_is_read_too(tmp_path: Path) -> None:
    images, labels = noise(20, 10)
    for array in (images.reshape(20, -1), np.asfortranarray(images.reshape(20, -1))):
        held = {b"data": array, b"labels": labels.tolist()}
        (tmp_path / "test_batch").write_bytes(pickle.dumps(held, protocol=4))
        read = read_pickle(tmp_path / "test_batch", b"labels")
        assert (read[0] == images).all()
        assert read[1].tolist() == labels.tolist()


def test_a_missing_set_says_in_a_line_where_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()  # a folder by the name of CIFAR-100's file
    for missing in (
        Cifar10(Cifar10Params()),
        source(tmp_path),
        source(tmp_path / "away"),
        Cifar100(Cifar100Params(path=str(tmp_path))),
    ):
        with pytest.raises(UserError, match=r"^no .*CIFAR-10.*; allowed: data.path") as told:
            missing.check()
        assert len(str(told.value).splitlines()) == 1
        assert "www.cs.toronto.edu/~kriz/cifar.html" in str(told.value)
        assert f"torchvision.datasets.{type(missing).__name__.upper()}(" in str(told.value)


@pytest.mark.parametrize(("write", "below", "suffix"), VERSIONS)
def test_a_set_that_is_not_whole_says_what_is_missing(
    tmp_path: Path, write: Write, below: str, suffix: str
) -> None:
    write_cifar10(tmp_path / below, write, suffix, [noise(10, 10)] * 6)
    (tmp_path / below / f"data_batch_3{suffix}").unlink()
    (tmp_path / below / f"test_batch{suffix}").unlink()
    lacks = f"{below} lacks data_batch_3{suffix}, test_batch{suffix}; allowed: "
    with pytest.raises(UserError, match=lacks):
        source(tmp_path).check()


def test_a_whole_version_is_read_where_the_other_is_not_whole(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-bin", write_binary, ".bin", [noise(10, 10)] * 6)
    write_cifar10(tmp_path / "cifar-10-batches-py", write_python, "", [noise(20, 10)] * 6)
    (tmp_path / "cifar-10-batches-bin/data_batch_1.bin").unlink()
    assert len(source(tmp_path).load()[0]) == 100


@pytest.mark.parametrize("size", [1, 3072, 3074, 2 * 3073 - 1])
def test_a_binary_file_cut_short_is_named(tmp_path: Path, size: int) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(UserError, match=rf"test_batch\.bin is damaged: {size} bytes"):
        read_binary(tmp_path / "test_batch.bin", label_bytes=1)


@pytest.mark.parametrize(("write", "below", "suffix"), VERSIONS)
@pytest.mark.parametrize("labels", [np.array([3, 10]), np.array([], int)])
def test_labels_beyond_the_classes_or_none_at_all_are_refused(
    tmp_path: Path, write: Write, below: str, suffix: str, labels: NDArray[np.int64]
) -> None:
    wrong = noise(2, 10)[0][: len(labels)], labels
    write_cifar10(tmp_path, write, suffix, [noise(10, 10)] * 4 + [wrong, noise(10, 10)])
    with pytest.raises(UserError, match=f"data_batch_5{suffix} is damaged or not of CIFAR-10"):
        source(tmp_path).load()


def test_a_pickle_cut_short_anywhere_is_named(batch: Path) -> None:
    whole = batch.read_bytes()
    for size in [*range(0, 300, 7), *range(300, len(whole), 4999), len(whole) - 1]:
        batch.write_bytes(whole[:size])
        with pytest.raises(UserError, match="test_batch cannot be read: ") as told:
            read_pickle(batch, b"labels")
        assert len(str(told.value).splitlines()) == 1


def test_a_damaged_pickle_is_read_or_named_and_raises_nothing_else(batch: Path) -> None:
    whole = batch.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, 600, 3):  # where there is more than pixels
            damaged[at] = rng.integers(256)
        batch.write_bytes(damaged)
        try:
            images, labels = read_pickle(batch, b"labels")
        except UserError:
            refused += 1
        else:
            assert images.shape == (len(labels), 3, 32, 32)
    assert refused > 100


ROWS = noise(4, 4)[0].reshape(4, -1)
WRONG: dict[str, Any] = {
    "a list": [1, 2, 3],
    "no data": {"labels": [0, 1]},
    "no labels": {"data": ROWS},
    "a label too few": {"data": ROWS, "labels": [0, 1, 2]},
    "labels of floats": {"data": ROWS, "labels": [0.0, 1.0, 2.0, 3.0]},
    "labels of bools": {"data": ROWS, "labels": [True, True, False, False]},
    "labels in an array": {"data": ROWS, "labels": np.arange(4)},
    "a label of 2^70": {"data": ROWS, "labels": [0, 1, 2, 2**70]},
    "text for labels": {"data": ROWS, "labels": "0123"},
    "data in a list": {"data": ROWS.tolist(), "labels": [0, 1, 2, 3]},
    "an array of objects": {"data": ROWS.astype(object), "labels": [0, 1, 2, 3]},
    "an array of floats": {"data": ROWS.astype(float), "labels": [0, 1, 2, 3]},
    "an array of records": {
        "data": np.zeros((4, 3072), [("r", "u1")]),
        "labels": [0, 1, 2, 3],
    },
    "images of another size": {"data": ROWS[:, :3071], "labels": [0, 1, 2, 3]},
    "one axis": {"data": ROWS.reshape(-1), "labels": [0, 1, 2, 3]},
}


@pytest.mark.parametrize("held", WRONG.values(), ids=WRONG)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, held: object) -> None:
    (tmp_path / "test_batch").write_bytes(python2_pickle(held))
    with pytest.raises(UserError, match=r"test_batch cannot be read: .+; allowed: as published"):
        read_pickle(tmp_path / "test_batch", b"labels")


# Files that would do something. Each leaves a file named `ran`, if it is believed.


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def make(protocol: int, name: str, *arguments: str) -> bytes:
    """A call of a function `module name`, by the opcodes of a protocol."""
    module, _, function = name.partition(" ")
    stack = pickle.MARK + b"".join(b"V" + a.encode() + b"\n" for a in arguments) + pickle.TUPLE
    if protocol == 0:
        inside = b"".join(b"V" + a.encode() + b"\n" for a in arguments)
        return b"(" + inside + f"i{module}\n{function}\n.".encode()  # INST
    if protocol == 2:
        return b"\x80\x02" + f"c{module}\n{function}\n".encode() + stack + b"R."
    found = b"".join(pickle.SHORT_BINUNICODE + bytes([len(n)]) + n.encode() for n in name.split())
    return b"\x80\x04" + found + pickle.STACK_GLOBAL + stack + b"R."


TOUCH = "open('ran', 'w').close()"
CALLS = {
    "os.system": ("os system", "touch ran"),
    "posix.system": ("posix system", "touch ran"),
    "subprocess": ("subprocess getoutput", "touch ran"),
    "eval": ("builtins eval", TOUCH),
    "eval of Python 2": ("__builtin__ eval", TOUCH),
    "exec": ("builtins exec", TOUCH),
    "getattr": ("builtins getattr", "os", "system"),
    "runpy": ("runpy run_path", "script.py"),
    "numpy.load": ("numpy load", "bomb.npy"),
    "numpy.memmap": ("numpy memmap", "ran"),
    "numpy.core's fromfile": ("numpy.core.multiarray fromfile", "script.py"),
    "numpy.testing": ("numpy.testing rundocs", "script.py"),
    "numpy.testing's runstring": ("numpy.testing._private.utils runstring", TOUCH, "x"),
    "numpy.f2py": ("numpy.f2py compile", "touch ran"),
    "distutils": ("numpy.distutils.exec_command exec_command", "touch ran"),
    "by way of a dot": ("numpy ndarray.tofile", "ran"),
    "by way of an inner module": ("numpy core.multiarray._reconstruct", "ran"),
    "_codecs": ("_codecs encode", "touch ran", "latin1"),
    "copyreg": ("copyreg _reconstructor", "x"),
    "evonas itself": ("evonas.data.cifar Path", "ran"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(("name", "arguments"), [(c[0], c[1:]) for c in CALLS.values()], ids=CALLS)
def test_a_pickle_that_calls_something_is_refused_and_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: tuple[str, ...],
    protocol: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("script.py").write_text(TOUCH)
    np.save("bomb.npy", np.array([Call(os.system, "touch ran")]), allow_pickle=True)
    Path("test_batch").write_bytes(make(protocol, name, *arguments))
    before = sorted(os.listdir())
    with pytest.raises(UserError, match=r"it asks for .*, which no batch needs") as told:
        read_pickle(Path("test_batch"), b"labels")
    assert name.replace(" ", ".") in str(told.value)
    assert sorted(os.listdir()) == before


def test_the_dangerous_calls_are_dangerous_where_pickle_itself_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4):
        for name, arguments in (("os system", ["touch ran"]), ("builtins eval", [TOUCH])):
            pickle.loads(make(protocol, name, *arguments))
            Path("ran").unlink()


@pytest.mark.parametrize(
    "held",
    [
        {b"data": ROWS, b"labels": [0, 1, 2, 3], b"filenames": Call(os.system, "touch ran")},
        {b"data": Call(os.system, "touch ran"), b"labels": [0, 1, 2, 3]},
        {b"data": np.array([Call(os.system, "touch ran")]), b"labels": [0]},
    ],
    ids=["beside the data", "for the data", "in the data"],
)
def test_a_call_hidden_in_a_batch_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: object
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        Path("test_batch").write_bytes(pickle.dumps(held, protocol))
        with pytest.raises(UserError, match="it asks for '"):
            read_pickle(Path("test_batch"), b"labels")
        assert not Path("ran").exists()


ARRAY = b"cnumpy\nndarray\n"
UNUSUAL = {
    "an array that is asked for and set like a list": ARRAY + b"(I3\ntRI0\nI1\ns.",
    "a state for the class itself": ARRAY + b"}X\x04\x00\x00\x00evilK\x01sb.",
    "slots for the class itself": ARRAY + b"N}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.",
    "an array made by new": b"\x80\x02" + ARRAY + b")\x81.",
    "an array as a dictionary": b"\x80\x02}X\x04\x00\x00\x00data" + ARRAY + b")\x81s.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a persistent object": b"Pevil\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "10^18 bytes": b"\x80\x04\x8e" + (10**18).to_bytes(8, "little") + b"x.",
    "lists 100,000 deep": b"]" * 100_000 + b"a" * 99_999 + b".",
    "a line break in a name": b"\x80\x04\x8c\x02o\n\x8c\x02s\n\x93.",
    "a name of 70,000 letters": b"c" + b"o" * 70_000 + b"\nsystem\n.",
}


@pytest.mark.parametrize("held", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_opcodes_end_in_one_short_line(batch: Path, held: bytes) -> None:
    whole = batch.read_bytes()
    batch.write_bytes(held)
    with pytest.raises(UserError) as told:
        read_pickle(batch, b"labels")
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 300 + len(str(batch))
    batch.write_bytes(whole)  # and leave nothing behind that changes the next file
    assert len(read_pickle(batch, b"labels")[1]) == 20


def test_no_array_is_made_as_large_as_a_file_says(batch: Path) -> None:
    batch.write_bytes(pickle.dumps({b"data": Call(np.ndarray, (10**9,)), b"labels": [0]}, 4))
    tracemalloc.start()
    with pytest.raises(UserError, match="cannot be read"):
        read_pickle(batch, b"labels")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**8
