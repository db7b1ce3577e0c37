"""The user's own Python files: `ops.py:mine` names a function in one.

A file is imported only if the command line permits it: by an experiment file that names it, or by
`--plugin FILE`, whose SHA-256 must be the one that the run folder recorded. A run folder alone
never makes evonas run anything.

What such a file imports from beside it, its *helpers*, is permitted with it and recorded too. As in
a script, a file beside goes before an installed package of the same name, but never before Python's
own modules, nor evonas. Files of one folder share a package that no other code can import from, so
`utils.py` may be there in two folders.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from evonas import files
from evonas.core import UserError

PATTERN = r"^.+\.py:[A-Za-z_]\w*$"
PREFIX = "evonas_plugin_"  # of the packages that hold the modules of the user's files
RESERVED = frozenset({*sys.stdlib_module_names, "evonas", "genomes"})  # never a file beside
Record = Mapping[str, Mapping[str, str]]
"""SHA-256 by path: of the files that an experiment names (`plugins`), and of their `helpers`."""


@dataclass(frozen=True)
class Code:
    """A file of the user's and its helpers, as they were when they were permitted.

    Attributes:
        path: where the file is now.
        files: path relative to the file's folder, and SHA-256, of the file and then of each helper.
        package: the name of the package that their modules are in.
    """

    path: Path
    files: tuple[tuple[str, str], ...]
    package: str = ""

    @property
    def module(self) -> str:
        """The name of the file's module, which is the same in every process."""
        return f"{self.package}.{_module_name(self.path.name)}"

    @property
    def modules(self) -> set[str]:
        """The names of the modules of the file and its helpers."""
        return {f"{self.package}.{_module_name(file)}" for file, _ in self.files}

    @property
    def paths(self) -> list[Path]:
        """Where the file and its helpers are."""
        return [self.path.parent / file for file, _ in self.files]

    @property
    def digest(self) -> str:
        """The SHA-256 of the file or, if there are helpers, of the SHA-256 of all of them."""
        (_, own), *helpers = self.files
        lines = "".join(f"{file} {digest}\n" for file, digest in sorted(helpers))
        return _sha256(f"{own}\n{lines}".encode()) if helpers else own


_allowed: dict[str, Code] = {}  # by a file's name
_packages: dict[str, tuple[Path, dict[str, str]]] = {}  # folder and files of each package so far


def file_of(reference: str) -> str | None:
    """Return the file that `FILE.py:NAME` names, or None for any other text."""
    return reference.rpartition(":")[0] if re.match(PATTERN, reference) else None


def anchored(reference: str, folder: Path) -> str:
    """Return a reference with its file resolved against `folder`; any other text as it is."""
    file, _, name = reference.rpartition(":")
    if not re.match(PATTERN, reference):
        return reference
    return f"{(folder / Path(file).expanduser()).resolve()}:{name}"


def allow(files: Iterable[str]) -> Record:
    """Permit files to be imported as they are now, with their helpers; return the SHA-256 of each.

    Raises:
        UserError: a file cannot be read.
    """
    names = list(files)
    _allowed.update(zip(names, _codes(map(Path, names)), strict=True))
    return record(names)


def record(files: Iterable[str]) -> Record:
    """Return the SHA-256 of permitted files and of their helpers, as run folders keep it."""
    codes = {file: allowed(file) for file in files}
    plugins = {file: code.files[0][1] for file, code in codes.items()}
    helpers = {
        str(code.path.parent / helper): digest
        for code in codes.values()
        for helper, digest in code.files[1:]
    }
    return {"plugins": plugins, **({"helpers": helpers} if helpers else {})}


def allow_again(recorded: Record, paths: Iterable[Path]) -> None:
    """Permit importing the files that a run folder recorded, from the paths that match them.

    Helpers are looked for beside these paths. A file beside that is not on record is no helper.

    Raises:
        UserError: a recorded file is missing, or its content has changed.
    """
    files, helpers = recorded.get("plugins", {}), recorded.get("helpers", {})
    current = {code.files[0][1]: code for code in _codes(paths)}
    missing = [file for file, digest in files.items() if digest not in current]
    if missing:
        digests = ", ".join(f"{files[file][:12]}..." for file in missing)
        several = ", for each of them" if len(missing) > 1 else ""
        raise UserError(
            f"this run depends on {', '.join(missing)}",
            hint=f"add --plugin FILE, with the same content{several} (SHA-256 {digests})",
        )
    codes, same = dict[str, Code](), set[str]()
    for file, digest in files.items():
        code, folder = current[digest], Path(file).parent
        kept = [each for each in code.files[1:] if helpers.get(str(folder / each[0])) == each[1]]
        same |= {str(folder / helper) for helper, _ in kept}
        codes[file] = replace(code, files=(code.files[0], *kept))
    changed = [helper for helper in helpers if helper not in same]
    if changed:
        digests = ", ".join(f"{helpers[helper][:12]}..." for helper in changed)
        raise UserError(
            f"this run depends on {', '.join(changed)}, which changed or is missing",
            hint=f"restore it beside the file of --plugin that imports it (SHA-256 {digests})",
        )
    _allowed.update(codes)


def allow_recorded(folder: Path, paths: Iterable[Path]) -> None:
    """Call `allow_again` with the record in the `environment.json` of a folder."""
    try:
        environment = json.loads(files.read(folder / "environment.json"))
        recorded = {
            kind: {str(file): str(digest) for file, digest in environment.get(kind, {}).items()}
            for kind in ("plugins", "helpers")
        }
    except (OSError, ValueError, AttributeError, RecursionError):
        recorded = {}
    allow_again(recorded, paths)


def is_allowed(file: str) -> bool:
    """Whether a file may be imported."""
    return file in _allowed


def all_allowed() -> dict[str, Code]:
    """Return all files that may be imported."""
    return dict(_allowed)


def allow_in_worker(files: Mapping[str, Code]) -> None:
    """Permit what another process permits; pickle then finds here what such a file defines."""
    _allowed.update(files)
    _install()


def contents() -> dict[str, tuple[Code, dict[str, bytes]]]:
    """Return all files that may be imported, and the content of each and of its helpers.

    Raises:
        UserError: one has changed since it was permitted.
    """
    return {
        file: (code, {name: _same(code.path.parent / name, sha256) for name, sha256 in code.files})
        for file, code in _allowed.items()
    }


def allow_copies(files_: Mapping[str, tuple[Code, Mapping[str, bytes]]], folder: Path) -> None:
    """Write what `contents` returned on another machine below a folder, and permit it here."""
    for file, (code, contents) in files_.items():
        place = folder / code.package  # two files of a package may have a helper in common
        for name, content in contents.items():
            files.make_folder((place / name).parent, named=True)
            files.write_atomic(place / name, content)
        _allowed[file] = replace(code, path=place / code.path.name)
    _install()


def import_allowed() -> None:
    """Import all permitted files; a mistake in one shows where it is used."""
    for file in _allowed:
        with suppress(UserError):
            _module(allowed(file))


def place(file: str) -> Path:
    """Return where a file is now: it may have moved since it was named."""
    return _allowed[file].path if file in _allowed else Path(file)


def allowed(file: str) -> Code:
    """Return a permitted file.

    Raises:
        UserError: the file may not be imported.
    """
    if file not in _allowed:
        raise UserError(f"{file} may not be imported", hint="permit it with --plugin FILE")
    return _allowed[file]


def sources(modules: Iterable[str]) -> set[str]:
    """Return the paths of the user's files, and of their helpers, that modules belong to."""
    names = set(modules)
    codes = [code for code in _allowed.values() if names & code.modules]
    return {str(path) for code in codes for path in code.paths}


def load(reference: str) -> Callable[..., Any]:
    """Return the function that `FILE.py:NAME` names.

    Raises:
        UserError: the file may not be imported, has changed, cannot be imported, or has no such
            function.
    """
    file, _, name = reference.rpartition(":")
    value = getattr(_module(allowed(file)), name, None)
    if not callable(value):
        raise UserError(f"{file} has no function {name}")
    function: Callable[..., Any] = value
    return function


@cache
def _module(code: Code) -> ModuleType:
    """Import a file, and within it its helpers."""
    _install()
    try:
        return importlib.import_module(code.module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(
            f"{code.path} cannot be imported: {type(error).__name__}: {error}{_blame(code, error)}",
            hint=_shadowed(code, error),
        ) from error


def _blame(code: Code, error: BaseException) -> str:
    """Return the helper and its line that raised an error, if a helper did."""
    paths = [str(path) for path in code.paths]
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename in paths]
    if not frames or frames[-1].filename == paths[0]:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def _shadowed(code: Code, error: BaseException) -> str:
    """Return what to do if an import failed since a file beside has a name that Python takes."""
    name = (error.name or "") if isinstance(error, ImportError) else ""
    file = code.path.parent / f"{name.partition('.')[0]}.py"
    if file.stem not in RESERVED or not file.is_file():
        return ""
    return f"rename {file}: {file.stem} is a module of Python, or evonas itself"


class _Finder(MetaPathFinder, Loader):
    """Imports permitted files and helpers by the names that they have in every process.

    A file is read once, so that what runs is what was hashed.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        files = _modules(package)
        file, _ = files.get(name, (None, ""))
        outer = {each.rpartition(".")[0] for each in files}  # "" is the package itself
        if file is None and not any(f"{each}.".startswith(f"{name}.") for each in outer):
            return None
        inside = file is None or (file.name == "__init__.py" and name != "__init__")
        origin = None if file is None else str(file)
        spec = ModuleSpec(fullname, self, origin=origin, is_package=inside)
        spec.has_location = file is not None
        return spec

    def exec_module(self, module: ModuleType) -> None:
        package, _, name = module.__name__.partition(".")
        file, digest = _modules(package).get(name, (None, ""))
        if file is None:
            return  # a package without code
        content = _same(file, digest)
        if len(_modules(package)) > 1:
            vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(package)}
        exec(compile(content, str(file), "exec"), vars(module))


def _install() -> None:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def _importer(package: str) -> Callable[..., Any]:
    """Return the `__import__` of the files in a package, which finds helpers first."""

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        tops = {module.partition(".")[0] for module in _modules(package)} - RESERVED
        within = globals or {}
        itself = within.get("__name__") == f"{package}.{top}" and "__path__" not in within
        if level or top not in tops or itself:
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(f"{package}.{name}", globals, locals, fromlist)
        return module if fromlist else sys.modules[f"{package}.{top}"]

    return import_


def _modules(package: str) -> dict[str, tuple[Path, str]]:
    """Return the path and SHA-256 of each module in a package."""
    return {
        _module_name(file): (code.path.parent / file, digest)
        for code in _allowed.values()
        if code.package == package
        for file, digest in code.files
    }


def _module_name(file: str) -> str:
    """Return the name, within its package, of the module in a file."""
    parts = file.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(part.replace(".", "-") for part in parts)  # a file may be called my.space.py


def _codes(paths: Iterable[Path]) -> list[Code]:
    """Return files as they are now; all that cannot be read are told together."""
    codes, mistakes = list[Code](), list[Any]()
    for path in paths:
        try:
            codes.append(_code(path.resolve()))
        except UserError as error:
            mistakes += error.mistakes
    if mistakes:
        raise UserError(*mistakes)
    return codes


def _code(path: Path) -> Code:
    """Return a file as it is now."""
    digests: dict[str, str] = {}
    waiting = [path.name]
    while waiting:
        file = waiting.pop(0)
        if file not in digests:
            content = _read(path.parent / file)
            digests[file] = _sha256(content)
            waiting += _imported(path.parent, file, content)
    return Code(path, tuple(digests.items()), _package(path.parent, digests))


def _package(folder: Path, files: Mapping[str, str]) -> str:
    """Return the package for the modules of files in a folder.

    It is one that the folder already has, so that two files see the same classes in a helper,
    unless one of the files was another one then.
    """
    named = f"{folder} {sorted(files.items())}"
    package = f"{PREFIX}{_sha256(named.encode())[:16]}"
    for name, (place, so_far) in _packages.items():
        if place == folder and all(so_far.get(file, files[file]) == files[file] for file in files):
            package = name
    _packages.setdefault(package, (folder, {}))[1].update(files)
    return package


def _imported(folder: Path, file: str, content: bytes) -> Iterator[str]:
    """Yield the files below a folder, relative to it, that the import statements of one name."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # which importing it will tell
        return
    package = PurePosixPath(file).parent.parts
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            outer = package[: len(package) + 1 - node.level] if node.level else ()
            module = [*outer, *filter(None, [node.module])]
            for alias in node.names:
                name = ".".join([*module, alias.name])
                yield from _files(folder, file, name, relative=bool(node.level))
    for name in names:
        yield from _files(folder, file, name)


def _files(folder: Path, importing: str, name: str, *, relative: bool = False) -> Iterator[str]:
    """Yield the files below a folder that hold a module and the packages around it."""
    top, *_ = parts = name.split(".")
    if not relative and (top in RESERVED or importing == f"{top}.py"):
        return
    for count in range(1, len(parts) + 1):
        place = "/".join(parts[:count])
        file = next(
            (each for each in (f"{place}/__init__.py", f"{place}.py") if (folder / each).is_file()),
            None,
        )
        if count == 1 and file is None and not relative and _is_installed(top):
            return  # a folder without __init__.py comes last
        if file is not None:
            yield file


def _is_installed(name: str) -> bool:
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        return spec is not None and spec.origin is not None
    return False


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _same(path: Path, digest: str) -> bytes:
    """Return the content of a file that must not have changed."""
    content = _read(path)
    if _sha256(content) != digest:
        raise UserError(f"{path} changed while evonas was running", hint="start again")
    return content


def _read(path: Path) -> bytes:
    try:
        return files.read(path, links=True)
    except OSError as error:
        raise UserError(str(error.strerror), hint="give a Python file", key=str(path)) from None
