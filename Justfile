# darkroom's commands. `just` lists them; each makes what it needs first, with Python 3.11 and pip and nothing else.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments := true

python := ".venv/bin/python"
local := python + " -m infra.local"
proto_sources := "schema/darkroom/v1/*.proto"

# List the recipes
default:
    @just --list --unsorted

# Prompt in, picture out: start everything, render, save darkroom-<id>.png, stop what was started
[no-exit-message]
demo PROMPT: (venv "gateway,core,worker,local")
    @{{ local }} demo -- "$1"

# Start the stack and keep it running (supervisord restarts what dies)
[no-exit-message]
up: (venv "gateway,core,worker,local")
    @{{ local }} up

# Stop the stack
[no-exit-message]
down: (venv "gateway,core,worker,local")
    @{{ local }} down

# Stop the stack and start it with the settings of now
[no-exit-message]
restart: (venv "gateway,core,worker,local")
    @{{ local }} restart

# Read models file and rules file again: workers and gateways end their work and start again, one after the other
[no-exit-message]
reload: (venv "gateway,core,worker,local")
    @{{ local }} reload

# What runs, and what is ready
[no-exit-message]
status: (venv "gateway,core,worker,local")
    @{{ local }} status

# Follow the logs of all services, or of one: just logs worker; just logs --no-follow core
[no-exit-message]
logs *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} logs "$@"

# Make an API key for a tenant; it is shown once
[no-exit-message]
key TENANT: (venv "gateway,core,worker,local")
    @{{ local }} run gateway keys create "$1"

# API keys: just keys list | create TENANT | revoke ID
[no-exit-message]
keys *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run gateway keys "$@"

# All that happened to one generation: just history ID [--prompt]
[no-exit-message]
history *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core history "$@"

# Prove the event log, or say where it is wrong: just verify [--expect POSITION:CHAIN]
[no-exit-message]
verify *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core verify "$@"

# Copy the event log, also while core runs: just backup FILE
[no-exit-message]
backup *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core backup "$@"

# Put a backup in the log's place, after `just down`: just restore FILE [--replace]
[no-exit-message]
restore *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core restore "$@"

# Make the projection from the log again, after `just down`
[no-exit-message]
rebuild *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core rebuild "$@"

# Begin an empty history on purpose, where core refuses to; after `just down`
[no-exit-message]
init: (venv "gateway,core,worker,local")
    @{{ local }} run core init

# Erase ended generations for good, while the stack is up: just erase ID… | --tenant T --yes [--cancel]
[no-exit-message]
erase *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core erase "$@"

# The dead-letter queue: just dead-letters [list | send-back | discard]
[no-exit-message]
dead-letters *ARGS: (venv "gateway,core,worker,local")
    @{{ local }} run core dead-letters "$@"

# Each model of the models file: what it is, and whether it can be loaded: just models check [--load] [NAME…]
models *ARGS: (venv "worker")
    @{{ python }} -m worker models "$@"

# All tests, or those that pytest's ARGS choose; four processes on two cores, since many of them wait
test *ARGS: (venv "dev")
    {{ python }} -m pytest -n 4 --dist loadfile --no-loadscope-reorder "$@"

# Linting, types, generated code, import arrows; under 90 s
check: (venv "dev")
    #!/usr/bin/env bash
    set -euo pipefail
    {{ python }} -m mypy gateway core worker schema infra loadtests tests & types=$!  # the longest, beside the others
    trap 'kill $types 2>/dev/null || true' EXIT
    {{ python }} -m ruff check .
    {{ python }} -m ruff format --check .
    {{ just_executable() }} --quiet _proto-into var/proto-check
    diff -r -x __pycache__ schema/gen var/proto-check
    {{ python }} -m pytest -q tests/test_architecture.py
    wait $types

# Regenerate schema/gen from the .proto files
proto: (venv "dev") (_proto-into "schema/gen")

_proto-into FOLDER:
    mkdir -p "$1/darkroom"
    PATH="$PWD/.venv/bin:$PATH" {{ python }} -m grpc_tools.protoc -I schema --python_betterproto_out="$1" {{ proto_sources }}

# A benchmark by its name (submit, log, worker, batching, calls, transports, gpu): just bench worker --quick; the last line is JSON
bench NAME *ARGS: (venv "dev")
    {{ python }} -m loadtests.bench "$@"

# Load by simulated users on the emulated GPU: just load --users 50 --time 60s
load *ARGS: (venv "dev")
    {{ python }} -m loadtests.load "$@"

# Pictures of what the worker does when, as SVG and PNG: just timeline --mode plain|batched|overlapped|all --out FOLDER
timeline *ARGS: (venv "timeline")
    {{ python }} -m loadtests.timeline "$@"

# Simulated schedules of faults, from a seed: just simulate --schedules 1000 --seed 1; the last line is JSON
simulate *ARGS: (venv "dev")
    {{ python }} -m tests.simulation "$@"

# Every order of steps of a small generation: just interleavings --images 3 --crashes 2; the last line is JSON
interleavings *ARGS: (venv "dev")
    {{ python }} -m tests.simulation.exhaustive "$@"

# Spoiled queue messages, half of them with a valid digest: just fuzz --mutants 1000000 --seed 1; the last line is JSON
fuzz *ARGS: (venv "dev")
    {{ python }} -m tests.fuzz "$@"

# Faults of the disk under a real core: just storage-faults --every 1 --replays 10000; the last line is JSON
storage-faults *ARGS: (venv "dev")
    {{ python }} -m tests.storage "$@"

# Chaos with real processes, killed under load: just chaos --minutes 6 --kill-every 5 --rate 8; the last line is JSON
chaos *ARGS: (venv "dev")
    {{ python }} -m loadtests.chaos "$@"

# Poison among seven mates, through a whole stack: just poison --runs 100 --seed 1; the last line is JSON
poison *ARGS: (venv "dev")
    {{ python }} -m tests.crash.poison_runs "$@"

# Train the demo model from nothing (about an hour on two cores)
model-train *ARGS: (venv "dev")
    {{ python }} -m worker.demo_model.train "$@"

# Measure how often the demo model's pictures show what was asked for
model-eval *ARGS: (venv "dev")
    {{ python }} -m worker.demo_model.evaluate "$@"

# Make .venv and install the extras, pinned, when pyproject.toml or constraints.txt changed
venv EXTRAS="dev":
    @infra/venv.sh "$1"
