"""Runs a program that refuses root: `python not_root.py DIRECTORY program argument...`

Who is not root runs it as it is. Root enters a user namespace in which it is somebody else: the files are the same, and
so are their owners. Where the kernel has none of these, it becomes nobody, to whom the directory is given.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
NOBODY = 65534
SOMEBODY = 1000


def enter_user_namespace() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{SOMEBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{SOMEBODY} 0 1")
    return True


def become_nobody(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


if __name__ == "__main__":
    if os.geteuid() == 0 and not enter_user_namespace():
        become_nobody(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
