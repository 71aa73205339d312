#!/bin/sh
# Resolves the .in files in this folder into hashed locks, for every Python from 3.11 on and every system at once.
# usage: envs/lock.sh UV [--upgrade]
set -eu
cd "$(dirname "$0")"
uv=$1 && shift
case $uv in /*) ;; *) uv=../$uv ;; esac
resolve() {
    out=$1 && shift
    echo "lock: $out"
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-config \
        --custom-compile-command 'make lock' --output-file "$out" "$@"
}
resolve pip.lock "$@" pip.in
resolve host.lock "$@" -c pip.lock host.in
resolve study.lock "$@" -c pip.lock study.in torch-cpu.in
resolve study-cuda.lock "$@" -c pip.lock -c study.lock study.in torch-cuda.in
resolve dev.lock "$@" -c pip.lock -c study.lock -c study-cuda.lock --override no-torch.in dev.in
resolve evaluate.lock "$@" -c pip.lock -c study.lock -c study-cuda.lock -c dev.lock --override no-torch.in evaluate.in
