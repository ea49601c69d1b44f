#!/usr/bin/env bash
# Makes .venv in the current folder and installs this project with the given extras, pinned by constraints.txt.
# Does nothing when that has been done for the same pyproject.toml and constraints.txt. Called by the Justfile.
set -euo pipefail
extras="$1"
state=$(cat pyproject.toml constraints.txt | cksum)
for done in "$extras" dev; do  # dev holds every other extra
    [ "$(cat ".venv/.installed-$done" 2>/dev/null)" = "$state" ] && exit 0
done

if [ ! -x .venv/bin/python ]; then
    for python in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
        [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
        python=""
    done
    [ -n "$python" ] || { echo "darkroom needs Python 3.11 or later: install it, or set PYTHON" >&2; exit 2; }
    "$python" -m venv .venv
fi
echo "installing into .venv: $extras" >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]"
echo "$state" > ".venv/.installed-$extras"
