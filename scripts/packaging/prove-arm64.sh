#!/bin/sh
# The long check: Debian for arm64 under qemu, the .deb in it as on a Pi, doctor, demo, and the same predictions as here.
#
#   prove-arm64 [bookworm | trixie] [FOLDER]    FOLDER keeps the tree for the next run (default: /var/tmp/transom-arm64)
#   DEMO=60                                     seconds of the demo; 0 leaves it out
#   LOCK=yes                                    write locks/ for that platform first (scripts/lock in the tree)
#
# An hour where the processor is shared; torch is fetched once for each installation. Needs root, a network and
#   apt install mmdebstrap arch-test qemu-user-static binfmt-support
set -eu
suite=${1:-bookworm} demo=${DEMO:-60}
folder=$(mkdir -p "${2:-/var/tmp/transom-arm64}" && cd "${2:-/var/tmp/transom-arm64}" && pwd)
cd "$(dirname "$0")/../.."
project=$(pwd) tree=$folder/$suite python=/opt/transom/current/bin/python
for name in mmdebstrap arch-test qemu-aarch64-static update-binfmts; do
    command -v "$name" >/dev/null || { echo "prove-arm64: no $name; see the head of this file for what to install" >&2; exit 1; }
done
mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64
begun=$(date +%s)
step() { echo "=== $(($(date +%s) - begun)) s: $*"; }

inside() { # a command in the tree; its mounts are gone with it
    # shellcheck disable=SC2016 # the inner shell's own
    TREE=$tree PROJECT=$project unshare --mount sh -eu -c '
        mkdir -p "$TREE/project" && mount --bind "$PROJECT" "$TREE/project"
        mount --rbind /proc "$TREE/proc" && mount --rbind /dev "$TREE/dev"
        exec chroot "$TREE" env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin PIP_DEFAULT_TIMEOUT=180 "$@"
    ' sh "$@"
}

compare() { # NAME RUNTIME: the same inputs through the same runtime on both machines
    inside "$python" /project/scripts/packaging/same.py make --runtime "$2" "/root/same-$1"
    .venv/bin/python scripts/packaging/same.py make --runtime "$2" "$folder/same-$1"
    .venv/bin/python scripts/packaging/same.py compare "$tree/root/same-$1" "$folder/same-$1"
}

use() { # what a user would do next
    inside transom --version
    inside transom doctor --no-connect || step "doctor has findings, see above"
    [ "$demo" = 0 ] || inside transom demo --seconds "$demo"
}

scripts/install dev
if [ ! -d "$tree/usr" ]; then
    step "making $tree"
    mmdebstrap --quiet --arch=arm64 --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$tree"
fi
cp /etc/resolv.conf "$tree/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt" # a network may have its own
if [ "${LOCK:-}" ]; then
    step "locking"
    inside env PYTHON=/usr/bin/python3 /project/scripts/lock
fi
step "building and installing the package"
deb=$(scripts/build-deb "$folder" | tail -n 1)
cp "$deb" "$tree/root"
inside dpkg -i "/root/$(basename "$deb")"
use
step "with torch: comparing"
compare full torchscript
step "without torch"
inside transom-setup --light
use
compare light onnx
step "going back"
inside transom-setup --rollback
inside "$python" -c 'import torch; print("torch", torch.__version__, "again")'
step "purging"
inside dpkg --purge transom
[ ! -e "$tree/opt/transom" ] || { echo "prove-arm64: /opt/transom is still there" >&2; exit 1; }
step "done"
