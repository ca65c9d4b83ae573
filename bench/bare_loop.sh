#!/bin/bash
# What a site would write without straxflow: bare_loop.sh SOURCE WORK SSH_COMMAND PYTHON WORKERS CONTEXT TARGETS RUN...
# It stops at the first error, and checks nothing else.
set -euo pipefail
source=$1 work=$2 ssh=$3 python=$4 workers=$5 context=$6 targets=$7
shift 7
mkdir "$work/live" "$work/staging" "$work/store"
told=$EPOCHREALTIME
tell() { printf 'part %s %s\n' "$1" "$(bc <<<"scale=3; ($EPOCHREALTIME - $told) / 1")"; told=$EPOCHREALTIME; }

for run in "$@"; do
    rsync -a --fsync -e "$ssh" "$source/$run" "$work/live/"
    tell rsync
    # shellcheck disable=SC2086  (several words)
    "$python" "$(dirname "$0")/bare_strax.py" "$work/$run.json" "$work/live" "$work/staging" "$workers" "$context" $targets
    tell strax
    (cd "$work/staging" && find "$run"-* -type f -exec xxhsum -q -H2 {} + >"$work/$run.sums")
    tell hash
    cp -r "$work/staging/$run"-* "$work/store/"
    tell cp
    sync
    tell sync
    rm -r "$work/staging/$run"-*
    tell rm
done
