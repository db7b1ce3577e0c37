"""What a user's file imports from beside it: found there, hashed with it, and its own."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evonas import plugins, provenance
from evonas.cli import telling
from evonas.core import UserError
from evonas.export.source import Source
from evonas.records.folder import note_start

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files below a folder of the test, and return the path of the first."""
    forget(monkeypatch)

    def write(**texts: str) -> str:
        files = {tmp_path / name.replace("__in__", "/"): text for name, text in texts.items()}
        for file, text in files.items():
            file = file.with_name(f"{file.name}.py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        first = next(iter(files))
        return str(first.with_name(f"{first.name}.py"))

    return write


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(plugins, "_allowed", {})
    plugins._module.cache_clear()
    for name in [name for name in sys.modules if name.startswith("evonas_plugin_")]:
        del sys.modules[name]


def value(file: str, name: str = "mine") -> Any:
    plugins.allow([file])
    return plugins.load(f"{file}:{name}")()


HELPERS = {
    "parts": "x = 3",
    "lib__in____init__": "",
    "lib__in__conv": "x = 3",
    "bare__in__conv": "x = 3",
}


@pytest.mark.parametrize(
    ("line", "helper"),
    [
        ("from parts import x", "parts.py"),
        ("import parts; x = parts.x", "parts.py"),
        ("import parts as p; x = p.x", "parts.py"),
        ("from parts import *", "parts.py"),
        ("from .parts import x", "parts.py"),
        ("from . import parts; x = parts.x", "parts.py"),
        ("from lib.conv import x", "lib/conv.py"),
        ("from lib import conv; x = conv.x", "lib/conv.py"),
        ("import lib.conv; x = lib.conv.x", "lib/conv.py"),
        ("import lib.conv as c; x = c.x", "lib/conv.py"),
        ("from bare.conv import x", "bare/conv.py"),
        ("try:\n    from away import x\nexcept ImportError:\n    from parts import x", "parts.py"),
    ],
)
def test_a_helper_is_imported_and_recorded(line: str, helper: str, write: Write) -> None:
    file = write(my=f"{line}\n\n\ndef mine():\n    return x", **HELPERS)
    assert value(file) == 3
    recorded = plugins.record([file])
    assert set(recorded["plugins"]) == {file}
    assert str(Path(file).parent / helper) in recorded["helpers"]
    assert not {"parts", "lib", "bare"} & {*sys.modules}


def test_helpers_of_helpers_and_late_imports_count_too(write: Write) -> None:
    file = write(
        my="def mine():\n    import lib.a\n    return lib.a.x",
        lib__in____init__="",
        lib__in__a="from .b import x",
        lib__in__b="from ..top import x",
        top="import lib\nx = 5",
        unrelated="x = 0",
    )
    assert value(file) == 5
    names = {Path(each).name for each in plugins.record([file])["helpers"]}
    assert names == {"__init__.py", "a.py", "b.py", "top.py"}


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        ("parts", {"parts": "x = 4"}),
        ("conv", {"lib__in__conv": "x = 4"}),
    ],
)
def test_a_resume_with_a_changed_or_missing_helper_is_refused_by_its_name(
    changed: str, others: dict[str, str], write: Write, tmp_path: Path
) -> None:
    texts = {"my": "import parts\nfrom lib import conv\n\n\ndef mine():\n    return conv.x"}
    file = write(**texts, **HELPERS)
    (tmp_path / "environment.json").write_text(json.dumps(plugins.allow([file])))
    plugins._allowed.clear()
    plugins.allow_recorded(tmp_path, [Path(file)])  # unchanged; only the file itself is named
    assert plugins.load(f"{file}:mine")() == 3
    plugins._allowed.clear()
    write(**others)
    with pytest.raises(UserError, match=rf"depends on .*{changed}.py, which changed or is missing"):
        plugins.allow_recorded(tmp_path, [Path(file)])
    (Path(file).with_name("lib") / "conv.py").unlink()
    with pytest.raises(UserError, match=r"conv.py.*, which changed or is missing"):
        plugins.allow_recorded(tmp_path, [Path(file)])
    assert not plugins.is_allowed(file)


def test_a_moved_file_takes_its_helpers_along(write: Write, tmp_path: Path) -> None:
    file = write(
        **{
            "old__in__my": "import parts\n\n\ndef mine():\n    return parts.x",
            "old__in__parts": "x = 3",
        }
    )
    recorded = plugins.allow([file])
    digest = plugins.allowed(file).digest
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new" / "my.py").rename(tmp_path / "new" / "renamed.py")
    plugins._allowed.clear()
    plugins.allow_again(recorded, [tmp_path / "new" / "renamed.py"])
    assert plugins.load(f"{file}:mine")() == 3
    assert plugins.allowed(file).digest == digest


def test_a_helper_changes_the_digest_and_a_file_alone_has_its_own(write: Write) -> None:
    digests = []
    for text in ("x = 3", "x = 4"):
        file = write(my="import parts", parts=text)
        plugins.allow([file])
        digests.append(plugins.allowed(file).digest)
    alone = write(alone="import math")
    [digest] = plugins.allow([alone])["plugins"].values()
    assert plugins.allowed(alone).digest == digest
    assert len({*digests, digest}) == 3


def test_a_run_of_before_helpers_were_recorded_goes_on_without_them(write: Write) -> None:
    file = write(my="import parts\n\n\ndef mine():\n    return 1", parts="x = 3")
    recorded = {"plugins": plugins.allow([file])["plugins"]}
    plugins._allowed.clear()
    plugins.allow_again(recorded, [Path(file)])
    with pytest.raises(UserError, match="No module named 'parts'"):
        plugins.load(f"{file}:mine")


# Names that meet others


def test_files_of_two_folders_have_helpers_of_the_same_name(write: Write) -> None:
    mine = "from utils import x\n\n\ndef mine():\n    return x"
    first = write(**{"a__in__my": mine, "a__in__utils": "x = 1"})
    second = write(**{"b__in__my": mine, "b__in__utils": "x = 2"})
    assert (value(first), value(second), value(first)) == (1, 2, 1)


def test_files_of_one_folder_share_their_helpers(write: Write) -> None:
    """An own metric may ask whether a layer is of a class that the own space defines."""
    space = write(
        my_space="from parts import Layer\n\n\ndef mine():\n    return Layer()",
        parts="class Layer: ...",
    )
    metric = write(
        my_metric="import my_space, parts\n\n\ndef mine():\n    return my_space.Layer, parts.Layer"
    )
    assert {*value(metric)} == {type(value(space))}


def test_a_file_beside_goes_before_an_installed_package_but_only_for_the_users_files(
    write: Write,
) -> None:
    import yaml

    file = write(my="import yaml\n\n\ndef mine():\n    return yaml.x", yaml="x = 3")
    assert value(file) == 3
    assert sys.modules["yaml"] is yaml


def test_pythons_own_modules_and_evonas_are_never_a_file_beside(write: Write) -> None:
    texts = dict.fromkeys(("random", "types", "evonas", "genomes"), "raise RuntimeError")
    imports = "import random, types, evonas\nfrom genomes import Genome"
    file = write(my=f"{imports}\n\n\ndef mine():\n    return random.random()", **texts)
    assert 0 <= value(file) < 1
    assert "helpers" not in plugins.record([file])
    with pytest.raises(UserError, match=r"rename .*types.py: types is a module of Python"):
        value(write(other="from types import Mine", **texts))


def test_a_file_with_the_name_of_a_package_imports_the_package(write: Write) -> None:
    import yaml

    assert value(write(yaml="import yaml\n\n\ndef mine():\n    return yaml.dump")) is yaml.dump


def test_a_folder_without_code_of_its_own_does_not_hide_a_package(write: Write) -> None:
    file = write(my="import yaml\n\n\ndef mine():\n    return yaml.dump", yaml__in__data="x = 3")
    assert callable(value(file))
    assert "helpers" not in plugins.record([file])


@pytest.mark.parametrize("name", ["my-space", "my.space", "2ops", "a b"])
def test_any_file_name_will_do(name: str, write: Write) -> None:
    file = write(**{name: "from parts import x\n\n\ndef mine():\n    return x", "parts": "x = 3"})
    assert value(file) == 3


# In one process, and in several


def test_a_changed_helper_is_imported_anew_in_the_same_process(write: Write) -> None:
    """As in a notebook, between two searches."""
    text = "from parts import x\n\n\ndef mine():\n    return x"
    assert [value(write(my=text, parts=f"x = {x}")) for x in (1, 2, 1, 3)] == [1, 2, 1, 3]


def test_a_helper_that_changes_before_it_is_imported_is_told(write: Write) -> None:
    file = write(my="def mine():\n    import parts\n    return parts.x", parts="x = 3")
    plugins.allow([file])
    mine = plugins.load(f"{file}:mine")
    write(parts="x = 4")
    with pytest.raises(UserError, match=r"parts.py changed while evonas was running"):
        mine()


def test_a_worker_finds_what_a_helper_defines(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from parts import Layer\n\n\ndef mine():\n    return Layer()"
    file = write(my=text, parts="class Layer:\n    size = 3")
    sent = pickle.dumps(value(file))
    files = pickle.loads(pickle.dumps(plugins.all_allowed()))
    forget(monkeypatch)
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(sent)
    plugins.allow_in_worker(files)
    assert pickle.loads(sent).size == 3


def test_the_cache_knows_helpers_apart(write: Write) -> None:
    codes = []
    for text in ("x = 3", "x = 4"):
        file = write(my="import parts\n\n\ndef mine(): ...", parts=text)
        plugins.allow([file])
        module = plugins.load(f"{file}:mine").__module__
        codes.append(provenance.code(module, *plugins.sources([module])))
    assert codes[0] != codes[1]


def test_a_helper_is_written_into_an_exported_file(write: Write) -> None:
    text = "import parts\nfrom parts import x\n\n\ndef mine():\n    return x()"
    file = write(
        my=f"{text}\n\n\ndef other():\n    return parts.x()", parts="def x():\n    return 3"
    )
    plugins.allow([file])
    source = Source()
    source.add(plugins.load(f"{file}:mine"))
    assert source.text().strip().startswith("def x():")
    with pytest.raises(UserError, match="parts is used as a module; import names from it instead"):
        Source().add(plugins.load(f"{file}:other"))


# What is wrong is told


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (
            {"my": "import prats", "parts": ""},
            r"my.py cannot be imported: .*No module named 'prats'",
        ),
        ({"my": "import parts", "parts": "1 / 0"}, r"division by zero \(.*parts.py, line 1\)"),
        ({"my": "import parts", "parts": "x ="}, r"invalid syntax \(parts.py, line 1\)"),
        ({"my": "from parts import y", "parts": ""}, "cannot import name 'y'"),
        ({"my": "from ..parts import y", "parts": ""}, "relative import beyond top-level package"),
        ({"my": "import parts", "parts": "raise SystemExit(1)"}, "SystemExit: 1"),
    ],
)
def test_what_is_wrong_with_a_helper_is_told(
    texts: dict[str, str], told: str, write: Write
) -> None:
    with pytest.raises(UserError, match=told):
        value(write(**texts))


def test_all_missing_files_are_told_at_once(write: Write, tmp_path: Path) -> None:
    files = [write(**{name: f"x = '{name}'"}) for name in ("one", "two", "three")]
    recorded = plugins.allow(files)
    plugins._allowed.clear()
    with pytest.raises(UserError, match=r"add --plugin FILE, with the same content") as refused:
        plugins.allow_again(recorded, [Path(files[1])])
    assert files[0] in str(refused.value)
    assert files[2] in str(refused.value)
    assert files[1] not in str(refused.value)
    with pytest.raises(UserError) as unread:
        plugins.allow_again(recorded, [tmp_path / "x.py", tmp_path / "y.py"])
    assert [mistake.key for mistake in unread.value.mistakes] == [
        str(tmp_path / "x.py"),
        str(tmp_path / "y.py"),
    ]


def test_what_continues_a_run_names_the_files_of_that_run_alone(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.py", tmp_path / "other.py"
    for file in (mine, other):
        file.write_text("X = 1\n")
    recorded = plugins.allow([str(mine)])
    plugins.allow([str(other)])
    with_mine, without = tmp_path / "run", tmp_path / "plain"
    for folder, record in ((with_mine, recorded), (without, {})):
        folder.mkdir()
        note_start(folder, {}, record)
    assert telling.plugin_options(with_mine) == f" --plugin {mine}"
    assert telling.plugin_options(without) == ""
