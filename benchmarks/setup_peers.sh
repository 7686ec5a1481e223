#!/usr/bin/env bash
# Makes an environment of the benchmarks' peers: benchmarks/setup_peers.sh torch
#
# .venv-torch has PyTorch, .venv-runtimes has OpenVINO and ONNX Runtime. A second call with the same
# requirements returns at once. The interpreter is $TORCH_BASE if that is set, else the first on PATH
# that can make an environment and for which pip finds the packages.
set -euo pipefail

name=$1
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv-$name
requirements=$root/benchmarks/requirements-$name.txt
stamp=$venv/.setup-stamp # a checksum of the requirements, once all are installed
wanted=$(cksum <"$requirements")
[[ $(cat "$stamp" 2>/dev/null) == "$wanted" ]] && exit

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for python in ${TORCH_BASE:-python3.13 python3.12 python3.11 python3.10 python3}; do
    "$python" -I -c "import venv, ensurepip" 2>/dev/null || continue
    echo "benchmark: installing peers into .venv-$name with $("$python" -V) (200 MB download, once)"
    rm -rf "$venv"
    if { "$python" -I -m venv "$venv" &&
        "$venv/bin/python" -I -m pip install --quiet -r "$requirements"; } >"$log" 2>&1; then
        echo "$wanted" >"$stamp"
        exit
    fi
    rm -rf "$venv"
done
reason=$(grep -i error "$log" | tail -n 1 || true)
reason=${reason:-"no Python with venv and ensurepip was found"}
echo "benchmark: cannot make .venv-$name: $reason; TORCH_BASE=/path/to/python3 names another" >&2
exit 1
