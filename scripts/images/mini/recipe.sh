# shellcheck shell=bash disable=SC2034,SC2154
# mini: a small image for CI with the traits of a real inference image. Its server computes its answers (server.py).
tag=mini
disk_mb=2000
installs="Debian 12 (minbase, python3), $(grep -c == "$recipes/mini/wheels.txt") PyPI wheels (numpy, scipy, pandas, onnxruntime, …): about 500 MB unpacked, 160 MB packed"
layers=(base wheels app odd)

layer_base() { debian "$1" python3,ca-certificates; }

layer_wheels() { wheels "$1" "$recipes/mini/wheels.txt"; }

layer_app() {
  local app=$1/opt/mini
  mkdir -p "$app"
  install -m 644 "$recipes"/mini/{server,selfcheck}.py "$app"
  with_wheels "$work/wheels.tree" -- "$recipes/mini/mkmodel.py" "$app/model-1" "$work/base.tree/usr/share/common-licenses"
  # one matrix under three names: the embedding, the output head tied to it, and a spare
  mkdir "$app/spare"
  ln "$app/model-1/embedding.npy" "$app/model-1/head.npy"
  ln "$app/model-1/embedding.npy" "$app/spare/embedding.npy"
  ln -s model-1 "$app/current"             # the server reads its model through both symlinks
  ln -s /opt/mini/current "$1/opt/model"
  # what the next layer takes away
  mkdir -p "$1"/opt/odd/{removed-dir/sub,opaque/old-dir}
  echo removed > "$1/opt/odd/removed.txt"
  echo removed > "$1/opt/odd/removed-dir/sub/file.txt"
  echo hidden > "$1/opt/odd/opaque/old.txt"
  echo hidden > "$1/opt/odd/opaque/old-dir/file.txt"
  echo old > "$1/opt/odd/replaced.txt"
}

layer_odd() { "$python" "$recipes/mini/mkodd.py" "$1/.tar"; }
