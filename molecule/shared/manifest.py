# SPDX-License-Identifier: GPL-3.0-or-later
"""Record every file of a host, or compare with it: ``manifest.py record|compare [FOLDER ...]``.

Covers, below the folders given or everywhere, all regular files, links and directories on file
systems that outlive a reboot: type, mode, owner, size, mtime and SHA-256 (of directories neither
size nor mtime: a temporary file that came and went is no change). `compare` ends with 1 and names
each difference.

To read all of a host takes seconds, so a file is read once: its content is taken as known while its
inode and change time are what they were, which the kernel moves with every write and which no
program can set back.
"""

import hashlib
import json
import os
import stat
import sys
from itertools import chain
from pathlib import Path

RECORD = Path("/run/holdfast-manifest.json")
PERSISTENT = {"ext2", "ext3", "ext4", "xfs", "btrfs", "overlay"}
# What a running host changes by itself, without anyone configuring it:
OWN_LIFE = (
    "/var/lib/holdfast/",  # blocks are added all the time; the configuration is elsewhere
    "/var/log/holdfast/",  # where OpenRC's services write what others write to the journal
    "/var/lib/systemd/",  # timer stamps, random seed, clock
    "/var/lib/chrony/",  # how fast the clock is, by chronyd
    "/var/log/chrony/",  # a line per measurement
    "/var/log/journal/",
    "/var/log/messages",
    "/var/log/wtmp",  # logins and boots
    "/var/log/btmp",
    "/var/log/lastlog",
    "/var/cache/apt/pkgcache.bin",  # apt's index of its own lists, made when it is asked anything
    "/var/cache/apt/srcpkgcache.bin",
    "/var/cache/dnf/",  # dnf's index of its repositories, likewise
    "/var/lib/dnf/history.sqlite",  # SQLite opens it for writing to answer anything; packages
    "/var/lib/rpm/rpmdb.sqlite-shm",  # themselves are in the database beside this
    "/var/log/dnf.",  # a line per question
    "/var/log/hawkey.log",
    "/root/.ansible",  # Ansible puts what it runs there, and takes it away
    "/tmp/ansible_",  # and there  # noqa: S108 -- a name to skip, nothing is written
)


def mounts():
    """Mount points by whether what is below them survives a reboot."""
    points = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        points[point] = kind in PERSISTENT
    return points


def describe(path, known):
    """What must stay the same of one file, link or directory; and by what it is known again."""
    found = os.lstat(path)
    entry = [stat.filemode(found.st_mode), found.st_uid, found.st_gid]
    mark = [found.st_ino, found.st_ctime_ns]
    if stat.S_ISREG(found.st_mode):
        entry += [found.st_size, found.st_mtime_ns]
        if known and known["mark"] == mark and known["entry"][:-1] == entry:
            return known
        entry.append(hashlib.sha256(Path(path).read_bytes()).hexdigest())
    elif stat.S_ISLNK(found.st_mode):
        entry.append(os.readlink(path))
    return {"entry": entry, "mark": mark}


def manifest(roots, known):
    """Describe everything on persistent file systems below some folders, by path.

    known: an earlier manifest.
    """
    points = mounts()
    entries = {}
    for folder, folders, files in chain.from_iterable(map(os.walk, roots)):
        paths = {name: os.path.join(folder, name) for name in folders + files}  # noqa: PTH118
        kept = {name for name, path in paths.items() if points.get(path, True)}
        folders[:] = [name for name in folders if name in kept]
        for name in kept:
            path = paths[name]
            if not path.startswith(OWN_LIFE):
                entries[path] = describe(path, known.get(path))
    return entries


def differences(before, now):
    """One line for each path that came, went or changed."""
    for path in sorted(before.keys() | now.keys()):
        was, is_now = (side.get(path, {}).get("entry", "absent") for side in (before, now))
        if was != is_now:
            yield f"{path}: {was} -> {is_now}"


def main(command, *roots):
    """Exit code 0 when recorded or equal, 1 when something differs."""
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    now = manifest(roots or ["/"], known)
    if command == "record":
        RECORD.write_text(json.dumps(now))
        return 0
    found = list(differences(known, now))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
