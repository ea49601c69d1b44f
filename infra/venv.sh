#!/usr/bin/env bash
# Makes .venv in the current folder and installs this project with the given extras, pinned by constraints.txt.
# Does nothing when that has been done for the same pyproject.toml and constraints.txt. Called by the Justfile.
# Says what it installs and how long that took: with pip's own progress on a terminal, else with a line now and then.
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
    echo "making .venv with $("$python" --version 2>&1)" >&2
    "$python" -m venv .venv
fi

names=$(.venv/bin/python - "$extras" <<'PYTHON'
import re, sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
asked, names = sys.argv[1].split(","), set()
while asked:
    for each in extras.get(asked.pop(), []):
        names.add(re.match(r"[A-Za-z0-9_.-]+", each)[0])
        asked += each[each.index("[") + 1 : each.index("]")].split(",") if each.startswith("darkroom-serve[") else []
large = ("torch", "diffusers", "transformers", "matplotlib", "ministack", "supervisor", "pytest", "mypy")
print(", ".join(name for name in large if name in names))
PYTHON
)
echo "installing $extras into .venv${names:+ ($names and what they need)}; this happens once and takes minutes" >&2
quiet=()
if [ ! -t 2 ]; then  # a log, or a pipe: a line every 15 s instead of a bar
    quiet=(--quiet --progress-bar off)
    (while sleep 15 >/dev/null 2>&1; do echo "still installing, $SECONDS s" >&2; done) &
    heartbeat=$!
    trap 'kill "$heartbeat" 2>/dev/null || true' EXIT
fi
.venv/bin/python -m pip install ${quiet[@]+"${quiet[@]}"} --disable-pip-version-check -c constraints.txt -e ".[$extras]" >&2
echo "$state" > ".venv/.installed-$extras"
echo "installed in $SECONDS s" >&2
