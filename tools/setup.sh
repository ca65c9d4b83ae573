#!/bin/bash
# Sets up what straxflow needs, inside this folder: tools/setup.sh [demo|test|amstrax]
#   demo (default)  .venv from uv.lock, the run database's jars, rsync and ssh
#   amstrax         .venv-amstrax from tools/amstrax/uv.lock, for the tests with the real amstrax
#   test            both, and Slurm, munge, xxhsum, a C compiler, a browser and the shells that complete
# Nothing to do takes a moment; killed at any point, it is simply run again.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
what=${1:-demo}
uv_version=0.13.8
export PATH=$PATH:/usr/sbin:/sbin
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
unset PYTHONDONTWRITEBYTECODE VIRTUAL_ENV PYTHONPATH PYTHONHOME   # without bytecode every start costs seconds more

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

apt_install() { # packages...
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || die "needs: sudo apt-get install $*   (then run this again)"
        sudo=(sudo -n)
    fi
    command -v apt-get >/dev/null || die "install these with your system's package manager, then run this again: $*"
    say "installing $* (apt-get)"
    local log=$root/.tools/apt.log apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    local install=("${apt[@]}" install -y --no-install-recommends "$@")
    # package lists may be absent (a fresh image) or too old to name what the servers hold
    "${install[@]}" >"$log" 2>&1 </dev/null ||
        { "${apt[@]}" update && "${install[@]}"; } >"$log" 2>&1 </dev/null ||
        { tail -5 "$log" >&2; die "apt-get failed (log: $log); install by hand: $*"; }
}

need() { # command:package...
    local pair missing=()
    for pair in "$@"; do command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}"); done
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

find_python() { # sets python to a real interpreter, 3.11 or later: no shim, nor one of an environment made here
    local name
    for name in ${STRAXFLOW_PYTHON:-} python3 python3.13 python3.12 python3.11; do
        python=$("$name" -c 'import os, sys; assert sys.version_info >= (3, 11); print(os.path.realpath(sys._base_executable))' 2>/dev/null) && return
    done
    die "needs Python 3.11 or later, found: $(python3 --version 2>&1 || true). Install one, or set STRAXFLOW_PYTHON."
}

get_uv() { # uv, in a folder of its own: the system's pip may be absent or locked
    uv=$root/.tools/uv-$uv_version/bin/uv
    [ -e "$root/.tools/uv-$uv_version/done" ] && return
    say "fetching uv $uv_version"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    rm -rf "$root/.tools/uv-$uv_version"
    "$python" -m venv "$root/.tools/uv-$uv_version"
    "$root/.tools/uv-$uv_version/bin/python" -m pip -q --disable-pip-version-check install "uv==$uv_version" ||
        die "could not install uv $uv_version from PyPI"
    touch "$root/.tools/uv-$uv_version/done"
}

sync() { # environment folder, project folder, uv arguments...
    local env=$root/$1 project=$root/$2 stamp=$root/$1/.straxflow-stamp place locks; shift 2
    place="$env $python"
    locks=$(cat "$project/pyproject.toml" "$project/uv.lock" | cksum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$place $locks" ] && return
    say "building ${env##*/}"
    # only a finished environment of this place and Python has a stamp that may be built upon
    case "$(cat "$stamp" 2>/dev/null)" in "$place "*) rm "$stamp";; *) rm -rf "$env";; esac
    UV_PROJECT_ENVIRONMENT=$env "$uv" sync -q --project "$project" --python "$python" --frozen --compile-bytecode "$@" </dev/null ||
        die "uv could not build ${env##*/} (above)"
    echo "$place $locks" >"$stamp"
}

demo() {
    need rsync:rsync ssh:openssh-client sshd:openssh-server git:git
    get_uv
    sync .venv . --all-extras
    "$root/.venv/bin/python" -m straxflow.lab.rundb_server --fetch
}

amstrax() {
    get_uv
    sync .venv-amstrax tools/amstrax
}

mkdir -p .tools
exec 9>.tools/lock   # two at once would build into one folder
flock 9
find_python
case $what in
    demo) demo ;;
    amstrax) amstrax ;;
    test)
        need cc:build-essential zsh:zsh fish:fish slurmctld:slurm-wlm munged:munge xxhsum:xxhash chromium:chromium chromedriver:chromium-driver
        demo
        amstrax
        ;;
    *) die "unknown: $what (demo, amstrax or test)" ;;
esac
