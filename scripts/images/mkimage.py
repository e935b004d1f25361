#!/usr/bin/env python3
"""mkimage.py OUT TAG CONFIG.json LAYER.tar.gz ...: write an OCI image layout from gzip layers.

Beside each LAYER.tar.gz lies LAYER.diffid, the SHA-256 of its uncompressed tar. Layers are hard-linked into the layout.
"""
import hashlib
import json
import os
import sys
from pathlib import Path

CREATED = "2025-01-01T00:00:00Z"
OCI = "application/vnd.oci.image"


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def main(out, tag, config_file, *layer_files):
    out = Path(out)
    blobs = out / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def descriptor(media_type, digest, size):
        return {"mediaType": f"{OCI}.{media_type}", "digest": f"sha256:{digest}", "size": size}

    def put_json(media_type, value):
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return descriptor(media_type, digest, len(data))

    layers, diff_ids, history = [], [], []
    for file in map(Path, layer_files):
        name = file.name.removesuffix(".tar.gz")
        digest = sha256(file)
        if not (blobs / digest).exists():
            os.link(file, blobs / digest)
        layers.append(descriptor("layer.v1.tar+gzip", digest, file.stat().st_size))
        diff_ids.append("sha256:" + (file.parent / f"{name}.diffid").read_text().strip())
        history.append({"created": CREATED, "created_by": f"esgz scripts/image: {name}"})

    config = put_json("config.v1+json", {
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": json.loads(Path(config_file).read_text()),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    })
    manifest = put_json("manifest.v1+json", {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": config,
        "layers": layers,
    })
    manifest["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [manifest]}
    (out / "index.json").write_text(json.dumps(index) + "\n")
    (out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}\n')
    print(manifest["digest"])


if __name__ == "__main__":
    main(*sys.argv[1:])
