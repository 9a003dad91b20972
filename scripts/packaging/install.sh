#!/bin/sh
# Transom into a virtual environment under /opt/transom, beside the one that runs; `current` is switched when it works.
#
#   PREFIX/venvs/STAMP   one environment a version; STAMP is the version and a digest of all that went into it
#   PREFIX/current       link to the one that runs, switched by rename(2): it is the old or the new one, never none
#   PREFIX/previous      link to the one before it, for --rollback; others are removed
#   PREFIX/mode          full or light, so that an upgrade stays what it was
#
# Needs a POSIX shell, coreutils and python3-venv. As a .deb has it, the wheel and the lists lie beside this file.
set -eu
umask 022 # the service runs as a user who owns nothing here

me=${INSTALL_NAME:-install-pi}

usage() {
    cat <<EOF
usage: $me [--light | --full] [--wheel FILE] [--find-links FOLDER] [--rollback]

Installs Transom into /opt/transom on 64-bit Debian or Raspberry Pi OS (Bookworm, Trixie). Run it again to upgrade.

  --light              ONNX Runtime only, without torch: 55 MB of memory instead of 238; no training on this machine
  --full               with torch (the default, and again after --light)
  --wheel FILE         install this wheel, not the folder that this script lies in
  --find-links FOLDER  no network: every package comes from this folder of wheels
  --rollback           back to the version before; again, and forth
  --prefix FOLDER      where to install (default: /opt/transom)
  --bin FOLDER         where the link to transom goes (default: /usr/local/bin; "none": no link)
  --packages FOLDER    a site-packages whose packages are used where they fit, not installed again
                       (an image that has its own torch, and pip)
  --no-restart         leave a running service as it is

The variable PYTHON names another Python than /usr/bin/python3.
EOF
}

say() { printf '%s\n' "$*"; }
step() { if [ -t 2 ]; then printf '==> %s\n' "$*" >&2; fi; }
die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
prefix=/opt/transom bin=/usr/local/bin mode='' wheel='' links='' packages='' rollback='' restart=yes
while [ $# -gt 0 ]; do
    case "$1" in
    --wheel | --find-links | --prefix | --bin | --packages) [ $# -gt 1 ] || die "$1: needs a value; see --help" ;;
    esac
    case "$1" in
    --light) mode=light ;;
    --full) mode=full ;;
    --rollback) rollback=yes ;;
    --no-restart) restart='' ;;
    --wheel) wheel=$2 && shift ;;
    --find-links) links=$2 && shift ;;
    --prefix) prefix=$2 && shift ;;
    --bin) bin=$2 && shift ;;
    --packages) packages=$2 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) die "$1: no such option; see --help" ;;
    esac
    shift
done
case "$prefix" in /*) ;; *) die "--prefix $prefix: not absolute; give the whole path, such as /opt/transom" ;; esac

# --- what must hold before anything is written ---

# Prints a Python that every user of this machine can run, or says in one line why there is none.
find_python() {
    probe='import struct, sys; print(*sys.version_info[:2], 8 * struct.calcsize("P"))'
    for python in ${PYTHON:-/usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11}; do
        told=$("$python" -c "$probe" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # three words
        set -- $told
        [ "$3" -eq 64 ] || die "$python: a $3-bit system, for which there is no torch; install the 64-bit image"
        if [ "$1" -eq 3 ] && [ "$2" -ge 11 ] && [ "$2" -le 13 ]; then say "$python" && return; fi
        seen="$python is $1.$2"
    done
    die "${seen:-there is no /usr/bin/python3}: needs Python 3.11, 3.12 or 3.13; use Raspberry Pi OS Bookworm or newer"
}

check_machine() {
    [ "$(uname -s)" = Linux ] || die "$(uname -s): runs on Linux only; use Debian or Raspberry Pi OS"
    case "$(uname -m)" in
    aarch64 | x86_64) ;;
    *) die "$(uname -m): there is no torch for it; needs a 64-bit system (arm64 or amd64)" ;;
    esac
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python: has no venv; apt install python3-venv, then again"
    { mkdir -p "$prefix" 2>/dev/null && [ -w "$prefix" ]; } || die "$prefix: may not be written by $(id -un); run it with sudo"
}

check_space() { # MB, measured on aarch64 (docs/raspberry-pi.md), with what pip unpacks beside it
    case "$mode" in full) needed=1600 ;; light) needed=600 ;; esac
    [ -z "$packages" ] || needed=100
    free=$(($(df -Pk "$prefix" | awk 'NR == 2 { print $4 }') / 1024))
    [ "$free" -ge "$needed" ] ||
        die "$prefix: $free MB are free and $needed are needed; make room$([ "$mode" = light ] || say ', or use --light')"
    memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    if [ "$mode" = full ] && [ "$memory" -lt 900 ]; then
        say "note: $memory MB of memory; --light needs 55 MB for its runtime where torch needs 238"
    fi
}

# --- the links ---

link_of() { if [ -L "$prefix/$1" ]; then basename "$(readlink "$prefix/$1")"; fi; }

point() { # NAME STAMP: the link NAME is the old one or the new one at any moment, also after a power cut
    ln -sfn "venvs/$2" "$prefix/.$1.new"
    mv -Tf "$prefix/.$1.new" "$prefix/$1"
}

switch() { # STAMP: it becomes current, and what was current becomes previous
    old=$(link_of current)
    if [ -n "$old" ] && [ "$old" != "$1" ]; then point previous "$old"; fi
    point current "$1"
    cp "$prefix/current/.complete" "$prefix/mode"
    sync -f "$prefix"
    link_command
    [ "$restart" ] && [ -d /run/systemd/system ] || return 0
    # shellcheck disable=SC2013 # systemd has no names with blanks
    for file in $(grep -ls "^ExecStart=$prefix/current/" /etc/systemd/system/*.service); do
        service=$(basename "$file")
        if systemctl try-restart --no-block "$service"; then say "told to start again, if it runs: $service"; fi
    done
}

link_command() {
    [ "$bin" != none ] || return 0
    if [ -e "$bin/transom" ] && [ ! -L "$bin/transom" ]; then
        say "note: $bin/transom is a file of somebody else and was left alone; ours is $prefix/current/bin/transom"
    else
        mkdir -p "$bin" && ln -sfn "$prefix/current/bin/transom" "$bin/transom"
    fi
}

go_back() {
    old=$(link_of previous)
    [ -e "$prefix/venvs/${old:-none}/.complete" ] ||
        die "$prefix: there is no version before this one; install one with --wheel FILE"
    switch "$old"
    say "transom is $old again; $(link_of previous) is kept: --rollback goes forth to it"
}

sweep() { # what an installation left that did not end, and what is neither current nor previous
    for folder in "$prefix"/venvs/*; do
        case "$(basename "$folder")" in "$(link_of current)" | "$(link_of previous)") ;; *) rm -rf "$folder" ;; esac
    done
}

# --- the installation ---

digest() { sha256sum | cut -c1-12; }

# Where the program comes from: a wheel, or the folder of the project.
find_source() {
    if [ -z "$wheel" ]; then
        for file in "$here"/transom-*.whl; do [ ! -f "$file" ] || wheel=$file; done
    fi
    if [ -f "$here/constraints.txt" ]; then lists=$here; else lists=$(cd "$here/../.." && pwd); fi
    if [ -n "$wheel" ]; then
        [ -f "$wheel" ] || die "--wheel $wheel: there is no such file; scripts/build-wheel makes one"
        wheel=$(readlink -f "$wheel")
        version=$(basename "$wheel" | cut -d- -f2)
        content=$(digest <"$wheel")
    else
        [ -f "$lists/pyproject.toml" ] || die "$lists: is no checkout of Transom; give --wheel FILE"
        version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$lists/pyproject.toml")
        content=$(cd "$lists" && find pyproject.toml README.md LICENSE agent models -name __pycache__ -prune -o \
            -type f ! -name '*.pyc' -print | LC_ALL=C sort | xargs -d '\n' sha256sum | digest)
    fi
    release=$("$python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
    lock=$lists/locks/linux-$(uname -m)-$release$([ "$mode" = full ] || say -light).txt
    [ -f "$lock" ] || lock=
    stamp=$version-$({ say "$content $mode $release $(uname -m)" && cat "${lock:-$lists/constraints.txt}"; } | digest)
}

build() { # the wheel of the checkout, into $work; the build backend comes with its hash, and goes again
    step "building the wheel of $lists"
    backend=$work/backend
    if ! "$venv/bin/python" -c 'import hatchling' 2>/dev/null; then
        pip install --target "$backend" --require-hashes -r "$lists/locks/build.txt"
    fi
    (cd "$lists" && PYTHONPATH=$backend SOURCE_DATE_EPOCH=1580601600 PYTHONDONTWRITEBYTECODE=1 \
        "$venv/bin/python" -m hatchling build -t wheel -d "$work" >/dev/null)
    for file in "$work"/transom-*.whl; do wheel=$file; done
}

pip() { # TMPDIR: on Trixie /tmp is memory
    subcommand=$1 && shift
    [ -t 2 ] && quiet='' || quiet=--quiet
    # shellcheck disable=SC2086
    TMPDIR=$work "$venv/bin/python" -m pip "$subcommand" $quiet --disable-pip-version-check --no-cache-dir \
        --no-input --root-user-action=ignore ${links:+--no-index --find-links "$links"} "$@" ||
        die "pip $subcommand ends with $?, and nothing was changed; it said why (no network? see --find-links)"
}

fill() {
    step "making $venv with $python"
    if [ "$packages" ]; then
        "$python" -m venv --without-pip "$venv" # pip is among them
        (cd "$packages" && pwd) >"$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')/packages.pth"
    else
        "$python" -m venv "$venv"
    fi
    [ -n "$wheel" ] || build
    step "installing what it needs (some $([ "$mode" = light ] || say 2)50 MB to fetch)"
    if [ -n "$lock" ]; then
        pip install --require-hashes -r "$lock" ${TRANSOM_TORCH_INDEX:+--extra-index-url "$TRANSOM_TORCH_INDEX"}
    elif [ "$mode" = light ]; then
        pip install -r "$lists/light.txt" amqtt -c "$lists/constraints.txt"
    else
        pip install "${wheel}[demo]" -c "$lists/constraints.txt" ${TRANSOM_TORCH_INDEX:+--extra-index-url "$TRANSOM_TORCH_INDEX"}
    fi
    step "installing $(basename "$wheel")"
    pip install --no-deps --ignore-installed "$wheel"
}

try() { # a build of torch has met a processor that lacks its instructions before
    step "running a model"
    "$venv/bin/transom" inspect universal >"$work/tried" 2>&1 && return
    status=$?
    [ $status -ne 132 ] || die "torch is ended by SIGILL on this processor; nothing was changed; use --light"
    die "the new version does not run here, and nothing was changed: $(tail -n 1 "$work/tried")"
}

clean() {
    rm -rf "$work"
    [ -e "$venv/.complete" ] || rm -rf "$venv"
}

main() {
    check_machine
    mkdir -p "$prefix/venvs"
    exec 9>"$prefix/.lock"
    flock -n 9 || die "$prefix: another installation is running; wait for it"
    sweep
    if [ "$rollback" ]; then go_back && return; fi
    [ -n "$mode" ] || mode=$(cat "$prefix/mode" 2>/dev/null || say full)
    case "$mode" in full | light) ;; *) die "$prefix/mode: $mode is neither full nor light; give --full or --light" ;; esac
    find_source
    if [ -e "$prefix/venvs/$stamp/.complete" ] && "$prefix/venvs/$stamp/bin/transom" --version >/dev/null 2>&1; then
        if [ "$(link_of current)" = "$stamp" ]; then link_command && say "transom $stamp ($mode) is installed already" && return; fi
        switch "$stamp"
        say "transom is $stamp ($mode) again"
        return
    fi
    check_space
    venv=$prefix/venvs/$stamp work=$prefix/.work
    trap clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    rm -rf "$work" && mkdir "$work"
    fill
    try
    say "$mode" >"$venv/.complete"
    switch "$stamp"
    sweep
    say "transom $stamp ($mode) is in $prefix/current$([ "$bin" = none ] || say ", as $bin/transom")"
    [ -z "$(link_of previous)" ] || say "before it: $(link_of previous); $me --rollback goes back to it"
    if [ -e "$prefix/pyvenv.cfg" ]; then
        say "note: $prefix itself is an older environment, made by hand; a service that runs from it goes on doing so" \
            "until: sudo transom service install"
    fi
}

main
