"""Looks from inside a container of the mini image whether each oddity of its layers arrived as it must (see mkodd.py).

Run it, or GET /selfcheck: {"wrong": {}, "checked": N}. It needs to be root.
"""
import hashlib
import json
import os
import stat
import struct

ODD = "/opt/odd"
MIB = 1 << 20


def facts():
    """Yields (what, seen, expected); `seen` is a function, so that one failure does not hide the rest."""

    def odd(name):
        return f"{ODD}/{name}"

    def text(path):
        with open(path, encoding="utf-8") as f:
            return f.read()

    def digest(path):
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    def noise(name, size):
        return hashlib.sha256(hashlib.shake_256(name.encode()).digest(size)).hexdigest()

    def mode(path):
        return stat.filemode(os.lstat(path).st_mode)

    def same(*paths):
        return len({(os.lstat(p).st_dev, os.lstat(p).st_ino) for p in paths}), {os.lstat(p).st_nlink for p in paths}

    yield "no parents", lambda: text("/srv/no-parents/deep/file.txt"), "my parents have no entries\n"
    yield "no parents: mode", lambda: mode("/srv/no-parents/deep"), "drwxr-xr-x"
    for gone in "/etc/issue.net", odd("removed.txt"), odd("removed-dir"):
        yield f"whiteout {gone}", lambda gone=gone: os.path.lexists(gone), False
    yield "opaque", lambda: os.listdir(odd("opaque")), ["new.txt"]
    yield "replaced", lambda: text(odd("replaced.txt")), "new\n"
    yield "no whiteout is seen", lambda: [n for n in os.listdir(ODD) if n.startswith(".wh.")], []

    yield "xattr of a folder", lambda: os.getxattr(ODD, "user.esgz.folder"), b"a folder's attribute"
    yield "xattrs", lambda: {k: os.getxattr(odd("xattrs"), k) for k in os.listxattr(odd("xattrs")) if k.startswith("user.esgz")}, {
        "user.esgz.text": b"some text", "user.esgz.nul": b"a\0b\n\x7f"}
    yield "capability", lambda: struct.unpack("<IIIII", os.getxattr(odd("capable"), "security.capability")), (
        0x02000001, 1 << 10, 0, 0, 0)

    long = ODD
    for i in range(3):
        long += f"/long-{i}-" + 20 * "abcd"
        yield f"long path {i}", lambda i=i, long=long: text(f"{long}/file-{i}"), f"long {i}\n"
    yield "long symlink", lambda: text(odd("long-link")), "long 2\n"
    yield "UTF-8 and a new line in a name", lambda: text(odd("Ünïcödé 名前 🦀/naïve\nnew line.txt")), "grüße\n"
    yield "sub-second mtime", lambda: os.stat(odd("sub-second")).st_mtime_ns, 1700000000123456789

    yield "setuid", lambda: mode(odd("setuid")), "-rwsr-xr-x"
    yield "setgid", lambda: mode(odd("setgid")), "-rwxr-sr-x"
    yield "owner", lambda: (os.stat(odd("setgid")).st_uid, os.stat(odd("setgid")).st_gid), (1234, 3_000_000)
    yield "sticky", lambda: mode(odd("sticky")), "drwxrwxrwt"
    yield "mode 000", lambda: mode(odd("unreadable")), "----------"
    yield "fifo", lambda: mode(odd("fifo")), "prw-r--r--"
    yield "empty file", lambda: os.stat(odd("empty")).st_size, 0
    yield "empty folder", lambda: os.listdir(odd("empty-dir")), []
    yield "dangling symlink", lambda: os.readlink(odd("dangling")), "/no/such/file"
    yield "hard link to a symlink", lambda: os.readlink(odd("hard-to-symlink")), "/no/such/file"
    yield "relative symlink", lambda: (os.readlink(odd("relative")), text(odd("relative"))), ("../odd/replaced.txt", "new\n")
    yield "absolute symlink", lambda: text(odd("absolute")), "new\n"

    yield "4 MiB", lambda: digest(odd("4m")), noise("4m", 4 * MIB)
    yield "4 MiB + 1", lambda: digest(odd("4m-plus-1")), noise("4m-plus-1", 4 * MIB + 1)
    yield "4 MiB of zeros", lambda: digest(odd("4m-zeros")), hashlib.sha256(bytes(4 * MIB)).hexdigest()
    yield "hard link", lambda: same(odd("4m"), odd("hard-4m")), (1, {2})
    yield "three hard links", lambda: same(*(f"/opt/mini/{n}.npy" for n in ("model-1/embedding", "model-1/head", "spare/embedding"))), (1, {3})
    yield "an entry given twice", lambda: (text(odd("twice")), mode(odd("twice"))), ("second\n", "-rw-------")


def check():
    wrong, checked = {}, 0
    for what, seen, expected in facts():
        checked += 1
        try:
            value = seen()
        except Exception as e:
            value = e
        if value != expected:
            wrong[what] = f"expected {expected!r}, saw {value!r}"
    return {"wrong": wrong, "checked": checked}


if __name__ == "__main__":
    result = check()
    print(json.dumps(result, indent=1, ensure_ascii=False))
    raise SystemExit(bool(result["wrong"]))
