"""`just demo PROMPT`: the whole stack for one picture, over the public REST API, and nothing left running."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from infra.local import addresses, http, processes
from infra.local.layout import Ports, Stack
from infra.local.processes import StackError, Started

_DONE = frozenset({"succeeded", "failed", "cancelled", "expired"})
_DEADLINE_S = 300.0
_OK = 200
_ACCEPTED = 202
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_HOPELESS = "is broken"  # a model, in the readiness of a worker that has no other


def run(prompt: str) -> None:
    """Renders `prompt` into `darkroom-<id>.png` in the current folder, with a stack of its own unless one is up."""
    begun = time.monotonic()
    with _stack() as (stack, started):
        key = processes.read_key(stack)
        generation = _submit(stack, started, key, prompt)
        done = _follow(stack, started, key, generation)
        if done["status"] != "succeeded":
            raise StackError(f"{done['id']} {done['status']}: {done.get('error') or 'no reason given'}")
        link = _absolute(stack, done["images"][0]["url"])
        path = Path(f"darkroom-{done['id']}.png")
        path.write_bytes(http.fetch(link, key=key))
        print(f"id       {done['id']}\nlink     {link}\npicture  {path.absolute()}")
        print(f"seconds  {time.monotonic() - begun:.1f}", flush=True)


@contextlib.contextmanager
def _stack() -> Iterator[tuple[Stack, Started | None]]:
    """A stack that is up already, or one of our own for as long as this lasts."""
    own = Stack.from_env(os.environ, data_dir=Path("var/demo"))
    for folder in dict.fromkeys((own.data_dir, Stack.from_env(os.environ).data_dir)):
        found = processes.running(folder)
        if found is not None:
            yield found, None
            return
    stack = replace(own, ports=_free(own))
    print(f"starting emulator, core, worker and gateway (logs in {stack.logs})", flush=True)
    started = processes.start(stack)
    try:
        gateways = [program for program in stack.programs() if program.name == "gateway"]
        processes.wait_ready(started, gateways)
        yield stack, started
    finally:
        print("stopping what was started", flush=True)
        processes.stop(stack, started)


def _free(stack: Stack) -> Ports:
    """The stack's ports where they are free, any others where not."""
    wanted = [(name, f"DARKROOM_{name.upper()}", port) for name, port in asdict(stack.ports).items()]
    return Ports(
        **{
            name: port
            if addresses.is_free(stack.host_of(f"{variable}_PORT"), port, f"{variable}_HOST")
            else processes.free_port()
            for name, variable, port in wanted
        }
    )


def _submit(stack: Stack, started: Started | None, key: str, prompt: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        answer = http.call("POST", f"{stack.url}/v1/generations", headers=headers, body={"prompt": prompt})
        if answer.status == _ACCEPTED:
            body: dict[str, Any] = answer.json()
            return body
        if answer.status not in _TRY_AGAIN or time.monotonic() > deadline:
            raise StackError(http.explain(answer))
        _check(started)
        time.sleep(0.2)


def _follow(stack: Stack, started: Started | None, key: str, generation: dict[str, Any]) -> dict[str, Any]:
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
            _check(started)
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


def _check(started: Started | None) -> None:
    """Raises StackError when what we started cannot render any more."""
    if started is None:
        return
    processes.raise_complaint(started)
    for program in started.stack.programs():
        if program.name == "worker" and _HOPELESS in (why := http.unready_reasons(program.ready_url)):
            raise StackError(f"{program.name}: {why}; see {started.stack.logs / 'worker.log'}")


def _absolute(stack: Stack, link: str) -> str:
    return link if link.startswith("http") else stack.url + link
