# shellcheck shell=bash disable=SC2154,SC2115
# build.sh: how scripts/image makes an image's layers; sourced by it, after lib.sh, with $image, $recipes and $work set.
#
# A recipe (images/NAME/recipe.sh) sets:
#   tag        the image's tag
#   disk_mb    free disk that a build needs at its peak
#   installs   what it installs, for a person to read
#   layers     the names of its layers, lowest first
# and defines layer_NAME DIR for each, which fills DIR, or writes the layer's tar itself as DIR/.tar.
#
# Kill -9 safe: a tree is made as NAME.part and then renamed, a layer too; what bears its final name is whole.

epoch=1735689600    # 2025-01-01: no file in a layer is newer, so that a layer does not depend on when it was built
site=usr/local/lib/python3.11/dist-packages
python=$work/venv/bin/python

# debian DIR PACKAGE,...: a small Debian 12 with these packages.
debian() {
  SOURCE_DATE_EPOCH=$epoch mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include="usr-is-merged,$2" \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    bookworm "$1" > "$work/debian.log" 2>&1 || { cat "$work/debian.log" >&2; return 1; }
  rm -rf "$1"/dev/* "$1"/run/* "$1"/tmp/* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/* \
    "$1"/var/cache/ldconfig/aux-cache
  : > "$1/etc/hostname"; : > "$1/etc/hosts"; : > "$1/etc/resolv.conf"; : > "$1/etc/machine-id"
}

# wheels DIR LIST: the wheels named in LIST and nothing else, without .pyc files, as a container image has them.
wheels() {
  local dir=$1/$site list=$2 script
  mkdir -p "$dir"
  "$python" -m pip install --quiet --no-cache-dir --no-compile --no-deps --only-binary :all: --ignore-installed \
    --root-user-action ignore --disable-pip-version-check --target "$dir" -r "$list"
  for script in "$dir"/bin/*; do    # pip writes the build's own interpreter there
    if [ -f "$script" ] && [ "$(head -c 2 "$script")" = '#!' ]; then sed -i "1s|^#!$work.*|#!/usr/bin/python3|" "$script"; fi
  done
}

# with_wheels TREE... -- ARG...: the host's python3.11 with these layers' wheels.
with_wheels() {
  local path=
  while [ "$1" != -- ]; do path+=${path:+:}$1/$site; shift; done; shift
  PYTHONPATH=$path PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 "$python" "$@"
}

# build_venv: a Python with pip of our own (Debian's pip refuses to work outside of one).
build_venv() {
  "$python" -m pip --version >/dev/null 2>&1 && return
  rm -rf "$work/venv"
  /usr/bin/python3.11 -m venv "$work/venv"
}

# tree NAME: the layer's files at $work/NAME.tree.
tree() {
  local dir=$work/$1.tree
  [ ! -d "$dir" ] || return 0
  rm -rf "$dir.part"; mkdir -m 755 "$dir.part"
  "layer_$1" "$dir.part"
  mv "$dir.part" "$dir"
}

# pack NAME: the layer at $work/NAME.tar.gz, and the SHA-256 of its tar at $work/NAME.diffid.
pack() {
  local dir=$work/$1.tree tgz=$work/$1.tar.gz
  [ ! -s "$tgz" ] || return 0
  rm -f "$tgz.fifo"; mkfifo "$tgz.fifo"
  sha256sum < "$tgz.fifo" | cut -d' ' -f1 > "$work/$1.diffid" & local sum=$!
  if [ -f "$dir/.tar" ]; then cat "$dir/.tar"
  else
    tar -C "$dir" --format=pax --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' --sort=name \
      --numeric-owner --xattrs --xattrs-include='*' --mtime="@$epoch" --clamp-mtime -cf - .
  fi | tee "$tgz.fifo" | pigz -6 -n > "$tgz.part"
  wait "$sum"
  rm -f "$tgz.fifo"
  mv "$tgz.part" "$tgz"
}

# build: the image's layout at $work/oci.
build() {
  local layer files=()
  mkdir -p "$work/tmp"; export TMPDIR=$work/tmp    # on the same file system, and cleaned with the rest
  umask 022
  build_venv
  for layer in "${layers[@]}"; do
    say "image $image: layer $layer"
    tree "$layer"; pack "$layer"
    files+=("$work/$layer.tar.gz")
  done
  rm -rf "$work/oci"
  "$python" "$recipes/mkimage.py" "$work/oci" "$tag" "$recipes/$image/config.json" "${files[@]}" >/dev/null
}
