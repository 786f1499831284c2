"""Tell whether a folder is on a network file system, where LMDB's map and locks do not hold. Reads Linux's mounts."""

from __future__ import annotations

import re
from pathlib import Path

from tutor_service.paths import nearest
from tutor_service.store.base import StoreError

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs"),
        *("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.mountpoint-s3", "fuse.goofys", "fuse.rclone"),
        *("fuse.glusterfs", "fuse.blobfuse2"),
    }
)
"""Not among them: cluster file systems that keep maps and locks coherent (Lustre with flock, CephFS, GPFS, BeeGFS)."""


def file_system(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the file system that holds a folder, or would; None where the system does not say."""
    if not mounts.exists():
        return None
    place = nearest(folder)
    found: tuple[int, str] = (-1, "")
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= found[0]:  # of two at one place the later one counts
            found = (len(mount.parts), after.split()[0])
    return found[1] or None


def refuse_network(folder: Path, mounts: Path = MOUNTS) -> None:
    """Refuse a folder in which an advice store may not lie.

    Raises:
        StoreError: It is on a network file system.
    """
    kind = file_system(folder, mounts)
    if kind in _NETWORK:
        raise StoreError(
            f"advice store '{folder}' would lie on a network file system ({kind}), which can damage it. Put it on a "
            "disk of the gateway's node (LLM_TUTORS_HOME, or store.location of the tutor); what machines are to share "
            "goes to store.location = postgresql://user@host/database. What lies there already can still be read: "
            "`tutor store export`."
        )
