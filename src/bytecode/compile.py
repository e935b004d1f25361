# Compiles sources as an import would, for `esgz bytecode`. Takes frames on stdin, gives frames on stdout; the interpreter is the image's.
import sys
sys.path = [p for p in sys.path if p]
import struct
import importlib._bootstrap_external as loader

taken, given = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr
tag = (sys.implementation.cache_tag or "").encode()
given.write(struct.pack("<I", len(tag)) + tag)
given.flush()
while True:
    head = taken.read(24)
    if len(head) < 24:
        break
    optimize, name, mtime, size = struct.unpack("<iIqQ", head)
    path = taken.read(name).decode()
    source = taken.read(size)
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=optimize)
        failed, data = 0, bytes(loader._code_to_timestamp_pyc(code, mtime, size))
    except Exception as e:
        failed, data = 1, type(e).__name__.encode()
    given.write(struct.pack("<II", failed, len(data)) + data)
    given.flush()
