"""Files, opened, replaced and removed so that no link leads out of the folder they are in.

Whatever evonas writes, moves or deletes passes through here, and so does what it reads in its own
folders, which someone else may have made. A name that is a link is never followed, and what is no
plain file, such as a named pipe or a device, is refused rather than waited for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Literal

from evonas.core import SearchFailed, UserError

MAX_NAME = 200  # bytes; file systems take 255, of which endings need some
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it readable and writable"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), "remove what has its name"),
    **dict.fromkeys((errno.ENOENT, errno.ESTALE, errno.ENOTCONN), "put it back"),
    errno.EFBIG: "allow larger files",
}


def opened(path: Path, mode: Literal["rb", "ab", "r+b", "xb"] = "rb") -> FileIO:
    """Open a plain file, unbuffered: not through a link, and without waiting for a pipe.

    Raises:
        UserError: it is not a plain file or, if it is to be changed, it has another name as well.
        OSError: it cannot be opened; its `filename` says which.
    """
    refuse_unless_plain(path)
    file = FileIO(path, mode, opener=_opener)
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):  # exchanged in the meantime
        file.close()
        refuse_unless_plain(path)
    if mode in ("ab", "r+b") and status.st_nlink > 1:  # a hard link
        file.close()
        raise UserError("has another name elsewhere", hint="replace it by a copy", key=str(path))
    return file


def refuse_unless_plain(path: Path, *, links: bool = False) -> None:
    """Raise UserError if there is something at a path, but no plain file.

    Args:
        links: whether a link to a plain file will do, as for a file that the user names.
    """
    try:
        mode = (path.stat() if links else path.lstat()).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError:
        raise UserError("has a null character", hint="name another file", key=str(path)) from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise UserError(str(error.strerror), hint="name another file", key=str(path)) from None
    if not stat.S_ISREG(mode):
        raise _refused(path, mode, "a plain file")


def read(path: Path, *, links: bool = False) -> bytes:
    """Return the content of a plain file.

    Args:
        links: whether to follow a link, as for a file that the user names.

    Raises:
        UserError: it is not a plain file.
        OSError: it cannot be read.
    """
    refuse_unless_plain(path, links=links)
    with _about(path), opened(path.resolve() if links else path) as file:
        return file.readall()


def write_atomic(path: Path, content: bytes | str, *, sync: bool = False) -> None:
    """Write aside and rename into place; with `sync`, the file also survives a power cut."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.part")
    try:
        with _about(path), anew(aside) as file:
            write(file, data)
            if sync:
                os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink()  # a full disk needs the space
        raise
    if sync:
        with _about(path.parent), _folder(path.parent) as folder:
            os.fsync(folder)


def create(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        FileExistsError: there is something at the path.
        OSError: it cannot be written.
    """
    with _about(path), FileIO(path, "xb", opener=_opener) as file:
        write(file, text.encode())


def anew(path: Path) -> FileIO:
    """Open a new file in place of any that is there."""
    remove(path)
    return opened(path, "xb")


def append(path: Path, content: bytes) -> None:
    """Add to a file all of the content or, on a full disk, none of it."""
    with _about(path), opened(path, "ab") as file:
        write(file, content)


def write(file: FileIO, content: bytes) -> None:
    """Write all of the content at a file's end or, on a full disk, none of it."""
    size = os.fstat(file.fileno()).st_size
    try:
        while content:
            content = content[file.write(content) or 0 :]
    except OSError as error:
        os.ftruncate(file.fileno(), size)
        raise _named(error, file.name) from None


def cut(path: Path, size: int) -> None:
    """Drop what a file has beyond a size in bytes."""
    with _about(path), opened(path, "r+b") as file:
        file.truncate(size)


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    write_atomic(target, read(source))


def move(source: Path, target: Path) -> None:
    """Move a plain file to the place of another."""
    refuse_unless_plain(source)
    source.replace(target)


def remove(path: Path) -> None:
    """Delete a file, or a link itself, if it is there."""
    path.unlink(missing_ok=True)


def make_folder(path: Path, *, named: bool = False) -> None:
    """Make a folder, unless it is there.

    Args:
        named: whether it is one that the user names, which may be a link, and its parents missing.

    Raises:
        UserError: it is a link, or something else.
    """
    if named:
        path.mkdir(parents=True, exist_ok=True)
        return
    with suppress(FileExistsError):
        path.mkdir()
    if not stat.S_ISDIR(mode := path.lstat().st_mode):
        raise _refused(path, mode, "a folder")


def clear(path: Path) -> None:
    """Delete a folder and all in it, but not what links lead to; a link to it stays."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not path.is_symlink():
        path.rmdir()


def check_folder(path: Path) -> None:
    """Raise UserError unless all that is in a folder are plain files and folders.

    The folder itself may be named by a link.
    """
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = Path(folder, name)
            with suppress(FileNotFoundError):  # deleted by the process that writes the folder
                mode = entry.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise _refused(entry, mode, "a plain file or folder")


def failure(error: OSError, onward: str = "") -> SearchFailed:
    """Return the failure of a run by its machine: a full disk, no rights, a disk that fails.

    Args:
        onward: how to continue once that is remedied.
    """
    where = f"{error.filename}: " if error.filename else ""
    steps = [REMEDIES.get(error.errno or 0, "check the disk"), *([onward] if onward else [])]
    return SearchFailed(f"{where}{error.strerror or error}; {', then '.join(steps)}")


@contextmanager
def failing() -> Iterator[None]:
    """Let an OSError in what is done within be the run's failure, not a candidate's."""
    try:
        yield
    except OSError as error:
        raise failure(error) from None


def short(name: str) -> str:
    """Return a name that any file system takes, with an ending, for a network's key.

    It is the key itself unless that is too long or has a character that a file's name cannot have.
    """
    plain = re.sub(r"[^\w.-]", "_", name)
    if plain == name and len(name.encode()) <= MAX_NAME and not name.startswith("."):
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{plain[: MAX_NAME // 4]}-{digest}".lstrip(".")


def escaped(text: str, keep: str = "") -> str:
    """Return a text without control characters, line breaks and the like, as Python writes them.

    Args:
        keep: characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _refused(path: Path, mode: int, expected: str) -> UserError:
    kind = KINDS.get(stat.S_IFMT(mode), "a plain file" if stat.S_ISREG(mode) else "no file")
    return UserError(f"is {kind}, not {expected}", hint="remove it", key=str(path))


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY)
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Name the file in an OSError that does not, such as that of a write."""
    try:
        yield
    except OSError as error:
        raise _named(error, str(path)) from None


def _named(error: OSError, path: str | bytes | int) -> OSError:
    if error.filename or error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))
