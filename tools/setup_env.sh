#!/usr/bin/env bash
# Makes a virtual environment with MegEngine and the other pinned packages:
#
#     tools/setup_env.sh [--dev] [VENV]
#
# VENV is .venv in the repository root unless given; --dev adds the test and lint tools.
# A second call with the same requirements returns at once. The interpreter is $PYTHON if that
# is set, else the first Python 3.8 to 3.10 found on PATH, in pyenv's folder, or through uv.
# Nothing outside VENV is changed; only uv keeps a Python that it downloads in its own folder.
set -euo pipefail

fail() {
    echo "setup: $*" >&2
    exit 1
}

# True if $1 is a Python that MegEngine has wheels for and can import the modules $2. It must
# really run: pyenv's python3.10 is there, but fails, while another version is active.
# -I keeps the user's PYTHONPATH and the current folder out.
fits() {
    case $("$1" -I -c "import sys, $2; print('%d.%d' % sys.version_info[:2])" 2>/dev/null) in
        3.8 | 3.9 | 3.10) return 0 ;;
        *) return 1 ;;
    esac
}

# Sets uv to a command that runs it: the one on PATH or in its usual folder, through pipx, or one
# that pip puts below $venv, which a distribution's own rule against pip (PEP 668) does not forbid.
find_uv() {
    local python
    for python in uv "${HOME:-}/.local/bin/uv" "${HOME:-}/.cargo/bin/uv"; do
        uv=("$python")
        "${uv[@]}" --version >/dev/null 2>&1 && return 0
    done
    uv=(pipx run --spec "uv==$uv_version" uv)
    "${uv[@]}" --version >/dev/null 2>&1 && return 0
    for python in python3 python; do
        echo "setup: fetching uv $uv_version with $python"
        "$python" -m pip --disable-pip-version-check install --quiet --target "$venv/.uv" \
            "uv==$uv_version" 2>/dev/null || continue
        uv=("$venv/.uv/bin/uv")
        "${uv[@]}" --version >/dev/null 2>&1 && return 0
    done
    return 1
}

uv_version=0.13.9
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
files=(requirements.txt)
venv=$root/.venv
for argument in "$@"; do
    case $argument in
        --dev) files+=(requirements-dev.txt) ;;
        "" | -*) fail "usage: tools/setup_env.sh [--dev] [VENV]" ;;
        *) venv=$argument ;;
    esac
done
name=${venv#"$root/"}
stamp=$venv/.setup-stamp # a checksum of each requirement file that is installed completely

# 1. The virtual environment.
if ! fits "$venv/bin/python" pip; then
    # Only the project's own .venv, or a folder that an earlier call began, is ever deleted.
    if [[ -n $(ls -A "$venv" 2>/dev/null) && ! -e $stamp && $venv != "$root/.venv" ]]; then
        fail "$name is not an environment of Python 3.8-3.10 with pip: remove it or name another"
    fi

    pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
    candidates=(python3.10 python3.9 python3.8 python3 python)
    candidates+=("$pyenv"/3.10*/bin/python "$pyenv"/3.9*/bin/python "$pyenv"/3.8*/bin/python)
    if [[ -n ${PYTHON:-} ]]; then
        version=$("$PYTHON" -V 2>/dev/null) || version="does not run"
        fits "$PYTHON" "venv, ensurepip" ||
            fail "PYTHON=$PYTHON ($version) is not a Python 3.8-3.10 with venv and ensurepip"
        candidates=("$PYTHON")
    fi

    rm -rf "$venv"
    mkdir -p "$venv"
    touch "$stamp" # empty: begun
    for python in "${candidates[@]}"; do
        if fits "$python" "venv, ensurepip"; then
            echo "setup: creating $name with $("$python" -V)"
            "$python" -I -m venv "$venv" || fail "$python -m venv failed, see above"
            break
        fi
    done
    if [[ ! -e $venv/bin/python && -z ${PYTHON:-} ]] && find_uv; then
        echo "setup: creating $name with uv, which may download Python 3.10"
        "${uv[@]}" venv --quiet --no-project --python 3.10 --seed --allow-existing "$venv" || true
    fi
    if ! fits "$venv/bin/python" pip; then
        rm -rf "$venv"
        fail "found no Python 3.8, 3.9 or 3.10 that can make a virtual environment, and MegEngine
has no wheels for others; nor could uv be had, which downloads one. Any of these, then run this again:
    curl -LsSf https://astral.sh/uv/install.sh | sh    then open a new shell: uv, on any Linux
    apt-get install pipx && pipx install uv            on Debian 12 and Ubuntu 24.04 (as root)
    apt-get install python3.10-venv                    on Ubuntu 22.04, python3.9-venv on Debian 11
    pyenv install 3.10                                 it need not become the active version
or set PYTHON=/path/to/python3.10"
    fi
fi

# 2. The packages of each requirement file that the stamp does not list.
installed=()
missing=()
names=
count=0
for file in "${files[@]}"; do
    line="$file $(cksum <"$root/$file")"
    if ! grep -qsxF "$line" "$stamp"; then
        missing+=(-r "$root/$file")
        while read -r pin; do # a package may have a line for each Python
            case "$names " in *" ${pin%%==*} "*) ;; *) names+=" ${pin%%==*}" count=$((count + 1)) ;; esac
        done < <(grep '^[[:alnum:]]' "$root/$file")
    fi
    installed+=("$line")
done
[[ $count -eq 0 ]] && exit

case ${missing[1]} in
    */requirements.txt)
        : >"$stamp" # an interrupted upgrade must not look complete
        what="MegEngine and $((count - 1)) other packages into $name (1 GB download, once)" ;;
    *) what="$count packages into $name" ;;
esac
echo "setup: installing $what"
pip=("$venv/bin/python" -I -m pip --disable-pip-version-check)
[[ -t 1 ]] || pip+=(--quiet) # on a terminal pip shows its progress
# --no-warn-conflicts: MegEngine asks for opencv-python, which may be the headless one, below.
"${pip[@]}" install --no-warn-conflicts "${missing[@]}" ||
    fail "pip could not install the packages, see above; run this again to continue"

# opencv-python needs libGL and libgthread, which servers often lack; the headless one does not.
if ! "$venv/bin/python" -I -c "import cv2" 2>/dev/null; then
    version=$(sed -n 's/^opencv-python==\([^ ]*\).*/\1/p' "$root/requirements.txt")
    echo "setup: cv2 does not load (no libGL?): replacing it by opencv-python-headless $version"
    "${pip[@]}" uninstall --yes opencv-python
    "${pip[@]}" install --no-deps --force-reinstall "opencv-python-headless==$version" ||
        fail "pip could not install opencv-python-headless, see above; run this again to continue"
    "$venv/bin/python" -I -c "import cv2" || fail "cv2 does not load, see above"
fi

# 3. Written last, so that an interrupted installation is repeated.
printf '%s\n' "${installed[@]}" >"$stamp"
