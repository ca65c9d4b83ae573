#!/bin/bash
# What a site would write without straxflow: bare_loop.sh RUN SOURCE WORK PYTHON SSH_COMMAND...
# Stops at the first error, and checks nothing else.
set -euo pipefail
run=$1 source=$2 work=$3 python=$4
shift 4
mkdir -p "$work"/live "$work"/staging "$work"/store
now() { date +%s.%N; }
told=$(now)
tell() { local t; t=$(now); echo "$1 $(echo "$t - $told" | bc)"; told=$t; }

rsync -a --fsync -e "$*" "$source/$run" "$work/live/"
tell rsync
"$python" "$(dirname "$0")/bare_strax.py" "$work/run.json" "$work/live" "$work/staging"
tell strax
cd "$work/staging"
for folder in "$run"-*; do
    find "$folder" -type f -exec xxhsum -q -H2 {} + >"$work/$folder.sums"
    tell hash
    cp -r "$folder" "$work/store/"
    tell cp
done
sync
tell sync
rm -r "$work/staging"
tell rm
