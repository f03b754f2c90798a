"""What is looked at before a file is opened or created: its place, its permissions, SQLite itself."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import Final

from durable.errors import StoreUnavailable

OLDEST_SQLITE: Final = (3, 35, 0)
WAL_RESET_FIXED: Final = (3, 51, 3)

MOUNTS: Final = Path("/proc/self/mounts")

_NETWORK: Final = re.compile(
    r"(nfs|cifs|smb|9p|afs|ceph|lustre|gfs2?|ocfs2|gpfs|beegfs|glusterfs|davfs|ncpfs|orangefs|pvfs2|virtiofs|acfs).*"
    r"|fuse\.(sshfs|s3fs|goofys|gcsfuse|blobfuse2?|rclone|glusterfs|ceph.*|davfs.*|curlftpfs|afpfs|smbnetfs|juicefs"
    r"|seaweedfs|geesefs|mount-s3|grpcfuse|osxfs|bindfs|onedriver|google-drive-ocamlfuse|encfs|hdfs.*)"
)


def check_sqlite(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> None:
    """Raises: `StoreUnavailable` when this SQLite lacks what the statements use."""
    if version < OLDEST_SQLITE:
        raise StoreUnavailable(
            f"SQLite {_dotted(version)} is too old",
            f"install SQLite {_dotted(OLDEST_SQLITE)} or newer, or a Python that brings one",
        )


def notes(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> list[str]:
    """What an operator should know about this SQLite, a sentence each."""
    if not has_wal_reset_bug(version):
        return []
    bug = f"SQLite {_dotted(version)} has the WAL-reset bug (fixed in {_dotted(WAL_RESET_FIXED)}). durable avoids it;"
    return [f"{bug} other programs must not write to the file, nor make checkpoints of it."]


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether checkpoints may damage the file unless one connection makes them, while none writes."""
    return version < WAL_RESET_FIXED


def check_place(path: Path, mounts: Path = MOUNTS) -> None:
    """Raises: `StoreUnavailable` when a database at `path` could not be created, written or trusted."""
    directory = path.parent
    if not directory.is_dir():
        missing = "is not a directory" if directory.exists() else "does not exist"
        raise StoreUnavailable(
            f"the directory {directory} {missing}", "create it, or correct the path of the URL"
        )
    if path.exists() and not path.is_file():
        raise StoreUnavailable(f"{path} is not a file", "give the URL the path of a file")
    for each in (directory, path):
        if each.exists() and not os.access(each, os.R_OK | os.W_OK):
            raise StoreUnavailable(
                f"{each} cannot be written",
                "give this process permission to write the file and its directory (SQLite keeps files beside it)",
            )
    kind = filesystem_of(path, mounts)
    if kind is not None and _NETWORK.fullmatch(kind):
        raise StoreUnavailable(
            f"{path} is on a network file system ({kind}), where SQLite's locks cannot be trusted",
            "put the database on a disk of this host; to share work between hosts use Redis",
        )


def create(path: Path) -> None:
    """An empty file that only its owner can read, unless there is a file."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        # It must not be opened and closed here: that would take from SQLite the locks of this process.
        pass
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be created: {error.strerror}",
            "check the directory and the free space of its disk",
        ) from error


def filesystem_of(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the file system that holds `path`; None where the system does not tell."""
    try:
        table = mounts.read_text(errors="surrogateescape")
    except OSError:
        return None
    place = path.resolve()
    found: tuple[int, str] | None = None
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) > 2:
            mounted_at = Path(_unescape(fields[1]))
            depth = len(mounted_at.parts)
            # The last of those at one place covers the others.
            if place.is_relative_to(mounted_at) and (found is None or depth >= found[0]):
                found = depth, fields[2]
    return found[1] if found else None


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
