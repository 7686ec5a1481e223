"""Folders for what is run or trusted later: nobody else may have put, or may change, a file there.

Nothing here needs a package, or a Python newer than 3.6: it is used before any is known to be
there.
"""

import atexit
import os
import shutil
import stat
import tempfile
from typing import Tuple

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def why_not_private(path: str) -> str:
    """Why ``path``, a file or folder, could hold what somebody else has put there; "" if not so.

    It, and what it links to, belongs to this user or to root, and nobody else may write to it;
    above it nobody else can put another in its place.
    """
    try:
        path = os.path.realpath(path)
        status = os.stat(path)
        if status.st_uid not in (os.geteuid(), 0):
            return f"{path} belongs to another user"
        if status.st_mode & _OTHERS:
            return f"{path} can be written by others (chmod go-w would mend it)"
        above = os.path.dirname(path)
        while True:
            status = os.stat(above)
            shared = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
            if shared or status.st_uid not in (os.geteuid(), 0):
                return f"{above} belongs to others or can be written by others"
            if above == os.path.dirname(above):
                return ""
            above = os.path.dirname(above)
    except OSError as error:
        return f"{path}: {error.strerror}"


def private_folder(wanted: str, name: str) -> Tuple[str, str]:
    """``wanted`` where it is private and can be written, else a folder among the temporary ones.

    Args:
        wanted: is made if it is not there, for this user alone.
        name: of the other folder, which stays for the next run where that one is private, too.

    Returns:
        The folder, and why it is not ``wanted``, or nothing.

    Raises:
        OSError: when there is no room for temporary files either.
    """
    reason = _made(wanted)
    return (temporary_folder(name), reason) if reason else (wanted, "")


def temporary_folder(name: str) -> str:
    """A private folder for ``name``, the same one at each call where that is possible.

    Raises:
        OSError: when there is no room for temporary files.
    """
    lasting = os.path.join(tempfile.gettempdir(), f"{name}-{os.geteuid()}")
    if not os.path.islink(lasting) and not _made(lasting):
        return lasting
    folder = tempfile.mkdtemp(prefix=name + "-")
    atexit.register(_remove, folder, os.getpid())
    return folder


def _made(path: str) -> str:
    """Make the folder where it is not there; why it cannot be used, or nothing."""
    if not os.path.isabs(path):
        return f"{path!r} is not an absolute path"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        if not os.path.isdir(path):
            return f"{path}: not a folder"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return f"{path}: cannot be written"
    return why_not_private(path)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not a fork of it
        shutil.rmtree(folder, ignore_errors=True)
