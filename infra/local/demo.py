"""`just demo PROMPT`: the whole stack for one picture, over the public REST API, and nothing left running."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from infra.local import addresses, checks, folder, http, processes
from infra.local.layout import Ports, Stack
from infra.local.processes import StackError, Started
from infra.local.progress import Progress
from infra.local.readiness import Watch, wait_ready

_DONE = frozenset({"succeeded", "failed", "cancelled", "expired"})
_DEADLINE_S = 300.0
_OK = 200
_ACCEPTED = 202
_TRY_AGAIN = frozenset({429, 502, 503, 504})


def run(prompt: str) -> int:
    """Renders `prompt` into `darkroom-<id>.png` in the current folder, with a stack of its own unless one is up."""
    begun = time.monotonic()
    with _stack() as (stack, started):
        key = processes.read_key(stack)
        watch = Watch(started, Progress()) if started is not None else None
        generation = _submit(stack, watch, key, prompt)
        done = _follow(stack, watch, key, generation)
        if done["status"] != "succeeded":
            raise StackError(f"{done['id']} {done['status']}: {done.get('error') or 'no reason given'}")
        link = _absolute(stack, done["images"][0]["url"])
        path = Path(f"darkroom-{done['id']}.png")
        path.write_bytes(http.fetch(link, key=key))
        print(f"id       {done['id']}\npicture  {folder.shown(path.absolute())}")
        if started is None:
            print(f"link     {link} (with the API key in {folder.shown(stack.api_key_file)})")
        print(f"seconds  {time.monotonic() - begun:.1f}", flush=True)
    if started is not None:  # a link would lead nowhere: its gateway is gone
        print("`just up` keeps a stack running, for requests of your own")
    return 0


@contextlib.contextmanager
def _stack() -> Iterator[tuple[Stack, Started | None]]:
    """Yields a stack that is up already, or starts one for the length of the block.

    Our own has a data folder of its own, so that its log does not end up in the stack that `just up` starts later.
    """
    usual = Stack.from_env(os.environ)
    own = replace(usual, data_dir=usual.data_dir / "demo")
    for data_dir in (usual.data_dir, own.data_dir):
        found = processes.running(data_dir)
        if found is not None:
            print(f"using the stack that is up: {found.url}", flush=True)
            yield found, None
            return
    own = checks.placed(own, os.environ)
    folder.prepare(own)
    if processes.look(own.data_dir).programs:
        processes.stop(own)
    stack = replace(own, ports=_free(own))
    progress = Progress()
    progress.say(f"starting emulator, core, worker and gateway (kept in {folder.shown(stack.data_dir)})")
    started = processes.start(stack)
    try:
        processes.make_api_key(stack, processes.environment_of(stack))
        gateways = [program for program in stack.programs() if program.name == "gateway"]
        try:
            wait_ready(started, gateways, progress, notice=False)
        finally:
            progress.close()
        yield stack, started
    finally:
        print("stopping what was started", flush=True)
        processes.stop(stack, started)


def _free(stack: Stack) -> Ports:
    """The stack's ports; any free port in place of one that is in use."""
    wanted = [(name, f"DARKROOM_{name.upper()}", port) for name, port in asdict(stack.ports).items()]
    return Ports(
        **{
            name: port
            if addresses.is_free(stack.host_of(f"{variable}_PORT"), port, f"{variable}_HOST")
            else processes.free_port()
            for name, variable, port in wanted
        }
    )


def _submit(stack: Stack, watch: Watch | None, key: str, prompt: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        answer = http.call("POST", f"{stack.url}/v1/generations", headers=headers, body={"prompt": prompt})
        if answer.status == _ACCEPTED:
            body: dict[str, Any] = answer.json()
            return body
        if answer.status not in _TRY_AGAIN or time.monotonic() > deadline:
            raise StackError(http.explain(answer))
        _check(watch)
        time.sleep(0.2)


def _follow(stack: Stack, watch: Watch | None, key: str, generation: dict[str, Any]) -> dict[str, Any]:
    """Polls until the generation has ended, and draws the bar."""
    url = f"{stack.url}/v1/generations/{generation['id']}"
    headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=1"}
    deadline = time.monotonic() + _DEADLINE_S
    layout = "{desc} |{bar}| {n_fmt}/{total_fmt} steps, {elapsed}"
    with tqdm(total=generation.get("num_inference_steps") or 1, desc="queued", bar_format=layout) as bar:
        while True:
            _show(bar, generation)
            if generation["status"] in _DONE:
                return generation
            if time.monotonic() > deadline:
                raise StackError(f"{generation['id']} has not ended after {_DEADLINE_S:.0f} s; see {stack.logs}")
            _check(watch)
            answer = http.call("GET", url, headers=headers)
            if answer.status == _OK:
                generation = answer.json()
            elif answer.status in _TRY_AGAIN:
                time.sleep(0.5)
            else:
                raise StackError(http.explain(answer))


def _show(bar: "tqdm[Any]", generation: dict[str, Any]) -> None:
    bar.set_description_str(str(generation["status"]), refresh=False)
    progress = generation.get("progress")
    if generation["status"] == "succeeded":
        bar.n = bar.total or 0
    elif progress:
        bar.total, bar.n = progress["steps"], progress["step"]
    bar.refresh()


def _check(watch: Watch | None) -> None:
    """Raises StackError when what we started cannot render any more."""
    if watch is not None:
        watch.look()
        watch.look_at_workers()


def _absolute(stack: Stack, link: str) -> str:
    return link if link.startswith("http") else stack.url + link
