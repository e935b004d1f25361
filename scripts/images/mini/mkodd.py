#!/usr/bin/env python3
"""mkodd.py OUT.tar: a legal layer with what tar(1) can't easily make. selfcheck.py knows what must come of it."""
import hashlib
import io
import struct
import sys
import tarfile

EPOCH = 1735689600
ROOT = "opt/odd"
MIB = 1 << 20
# struct vfs_cap_data, revision 2 with the effective flag: cap_net_bind_service
NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def noise(name, size):
    return hashlib.shake_256(name.encode()).digest(size)


def main(out):
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name, data=b"", mode=0o644, type=tarfile.REGTYPE, xattrs=None, **fields):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = type, mode, EPOCH
            entry.size = len(data)
            for key, value in (xattrs or {}).items():
                entry.pax_headers["SCHILY.xattr." + key] = value.decode("ascii")
            for key, value in fields.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data))
            return entry

        def folder(name, **fields):
            add(name, mode=0o755, type=tarfile.DIRTYPE, **fields)

        # no entry for srv/no-parents/deep, nor for srv
        add("srv/no-parents/deep/file.txt", b"my parents have no entries\n")

        folder("opt")
        folder(ROOT, xattrs={"user.esgz.folder": b"a folder's attribute"})

        # taken away from lower layers, one of them of Debian's own
        add("etc/.wh.issue.net")
        add(f"{ROOT}/.wh.removed.txt")
        add(f"{ROOT}/.wh.removed-dir")
        folder(f"{ROOT}/opaque")
        add(f"{ROOT}/opaque/.wh..wh..opq")
        add(f"{ROOT}/opaque/new.txt", b"new\n")
        add(f"{ROOT}/replaced.txt", b"new\n")

        add(f"{ROOT}/xattrs", b"x", xattrs={"user.esgz.text": b"some text", "user.esgz.nul": b"a\0b\n\x7f"})
        add(f"{ROOT}/capable", noise("capable", 5000), mode=0o755, xattrs={"security.capability": NET_BIND})

        # 100 to 256 characters fit a ustar header's two fields, more need PAX
        long = ROOT
        for i in range(3):
            long += f"/long-{i}-" + 20 * "abcd"
            folder(long)
            add(f"{long}/file-{i}", f"long {i}\n".encode())
        folder(f"{ROOT}/Ünïcödé 名前 🦀")
        add(f"{ROOT}/Ünïcödé 名前 🦀/naïve\nnew line.txt", "grüße\n".encode())

        entry = tarfile.TarInfo(f"{ROOT}/sub-second")
        entry.pax_headers["mtime"] = "1700000000.123456789"
        tar.addfile(entry)

        add(f"{ROOT}/setuid", noise("setuid", 100), mode=0o4755)
        add(f"{ROOT}/setgid", noise("setgid", 100), mode=0o2755, uid=1234, gid=3_000_000)
        add(f"{ROOT}/sticky", mode=0o1777, type=tarfile.DIRTYPE)
        add(f"{ROOT}/unreadable", b"secret\n", mode=0o000)
        add(f"{ROOT}/fifo", type=tarfile.FIFOTYPE)
        add(f"{ROOT}/empty")
        folder(f"{ROOT}/empty-dir")
        add(f"{ROOT}/dangling", type=tarfile.SYMTYPE, linkname="/no/such/file", mode=0o777)
        add(f"{ROOT}/relative", type=tarfile.SYMTYPE, linkname="../odd/replaced.txt", mode=0o777)
        add(f"{ROOT}/absolute", type=tarfile.SYMTYPE, linkname="/opt/odd/replaced.txt", mode=0o777)
        add(f"{ROOT}/long-link", type=tarfile.SYMTYPE, linkname="/" + long + "/file-2", mode=0o777)
        add(f"{ROOT}/hard-to-symlink", type=tarfile.LNKTYPE, linkname=f"{ROOT}/dangling", mode=0o777)

        add(f"{ROOT}/4m", noise("4m", 4 * MIB))
        add(f"{ROOT}/4m-plus-1", noise("4m-plus-1", 4 * MIB + 1))
        add(f"{ROOT}/4m-zeros", bytes(4 * MIB))
        add(f"{ROOT}/hard-4m", type=tarfile.LNKTYPE, linkname=f"{ROOT}/4m")

        # the later entry of one name counts
        add(f"{ROOT}/twice", b"first\n")
        add(f"{ROOT}/twice", b"second\n", mode=0o600)


if __name__ == "__main__":
    main(sys.argv[1])
