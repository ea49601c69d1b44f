"""The commands of the local stack, except `demo` and `logs`. Each returns the exit code."""

import os
import signal
import sys
import time
from collections.abc import Sequence

from infra.lifecycle import EXIT_CRASHED
from infra.local import checks, folder, http, processes, settings_seen
from infra.local.layout import Program, Stack
from infra.local.processes import Seen, StackError
from infra.local.progress import Progress
from infra.local.readiness import is_hopeless, wait_ready, why_not_ready

_POLL_S = 0.1
_RELOAD_S = 1_800.0  # a drain, and a large model from a slow disk
_NEEDS_STACK = frozenset({"dead-letters", "erase"})


def up() -> int:
    """Starts the stack unless it is up. Returns 1 if it is up with other settings."""
    stack = Stack.from_env(os.environ)
    folder.prepare(stack)
    stack = checks.placed(stack, os.environ)
    progress = Progress()
    with folder.locked(stack):
        seen = processes.look(stack.data_dir)
        if seen.supervisor is not None:
            return _already(seen)
        if seen.programs:
            names = ", ".join(each.name for each in seen.programs)
            progress.note(f"{names} run without their supervisor: stopping them first")
            _stop(stack, progress)
        _start(stack, progress)
    return 0


def down() -> int:
    """Stops the stack, including services that a dead supervisor left running."""
    stack = Stack.from_env(os.environ)
    with folder.locked(stack):
        print("stopped" if _stop(stack, Progress(sys.stderr)) else "nothing was running")
    return 0


def restart() -> int:
    """Stops the stack and starts it with the current settings."""
    stack = Stack.from_env(os.environ)
    folder.prepare(stack)
    stack = checks.placed(stack, os.environ)
    progress = Progress()
    with folder.locked(stack):
        if _stop(stack, progress):
            progress.done("stopped")
        _start(stack, progress)
    return 0


def reload() -> int:
    """Drains and restarts each worker, then each gateway, one at a time, so that they read their files again.

    Accepted generations wait meanwhile. With a single gateway, connections are refused for about a second.
    """
    stack = Stack.from_env(os.environ)
    with folder.locked(stack):
        seen = processes.look(stack.data_dir)
        if seen.supervisor is None:
            raise StackError("the stack is not up: `just up` starts it")
        entries = checks.settings(os.environ)
        before, now = _settings(seen, "settings"), settings_seen.settings_of(os.environ)
        if differing := settings_seen.differences(before, now):
            raise StackError("settings differ from those it was started with: `just restart`; " + "; ".join(differing))
        progress = Progress()
        for line in checks.left_out(os.environ):
            progress.note(line)
        programs = [each for each in seen.stack.programs() if each.ready_url and each.name != "core"]
        for program in programs:
            _again(seen.stack, program, progress)
        folder.write_state(seen.stack, {**seen.state, "files": settings_seen.files_of(os.environ)})
    progress.say(f"models: {', '.join(entry.name for entry in entries)}")
    return 0


def status() -> int:
    """Prints what runs. Returns 0 if a supervisor keeps the stack alive."""
    seen = processes.look(Stack.from_env(os.environ).data_dir)
    if seen.nothing:
        print("down")
        return EXIT_CRASHED
    alive = {each.name: each.pid for each in seen.programs}
    if seen.supervisor is None:
        print("supervisord has died; its services run on: `just down` stops them, `just up` starts them again")
    else:
        print(f"up: {seen.stack.url}")
    for program in seen.stack.programs():
        if program.name in alive:
            print(f"{program.name:12} pid {alive[program.name]:<8} {_condition(seen.stack, program)}")
        else:
            print(f"{program.name:12} not running")
    return 0 if seen.supervisor is not None else EXIT_CRASHED


def run(module: str, arguments: Sequence[str]) -> int:
    """Replaces this process with `python -m module` in the environment of the stack's services; never returns."""
    wanted = Stack.from_env(os.environ)
    folder.prepare(wanted)
    seen = processes.look(wanted.data_dir)
    if arguments and arguments[0] in _NEEDS_STACK and seen.supervisor is None:
        raise StackError("the stack is not up: `just up` starts it")
    stack = wanted if seen.supervisor is None else seen.stack
    environment = processes.environment_of(stack)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *arguments], environment)  # noqa: S606


def _start(stack: Stack, progress: Progress) -> None:
    for line in checks.left_out(os.environ):
        progress.note(line)
    started = processes.start(stack)
    try:
        processes.make_api_key(stack, processes.environment_of(stack))  # meanwhile the services start
        wait_ready(started, stack.programs(), progress)
    except BaseException:
        progress.close()
        processes.stop(stack, started)
        raise
    progress.say(f"darkroom is up: {stack.url}")
    progress.say(f"API:            {stack.url}/docs describes it")
    progress.say(f"API key:        {folder.shown(stack.api_key_file)}")
    progress.say(f"logs:           {folder.shown(stack.logs)} (`just logs` follows them)")


def _stop(stack: Stack, progress: Progress) -> bool:
    try:
        return processes.stop(stack, on_wait=lambda what: progress.waiting({f"the end of {what}": ""}))
    finally:
        progress.close()


def _already(seen: Seen) -> int:
    settings = settings_seen.differences(_settings(seen, "settings"), settings_seen.settings_of(os.environ))
    files = settings_seen.changed_files(_settings(seen, "files"), settings_seen.files_of(os.environ))
    if not settings and not files:
        print(f"already up: {seen.stack.url}")
        return 0
    print(f"darkroom is up at {seen.stack.url}, and was started with other settings:")
    for line in settings:
        print(f"  {line}")
    for variable in files:
        print(f"  {variable}: the file holds something else now")
    print(f"`just {'restart' if settings else 'reload'}` makes it use these")
    return EXIT_CRASHED


def _settings(seen: Seen, name: str) -> dict[str, str]:
    kept = seen.state.get(name)
    return {str(key): str(value) for key, value in kept.items()} if isinstance(kept, dict) else {}


def _again(stack: Stack, program: Program, progress: Progress) -> None:
    """Ends one program and waits until its supervisor has it ready again."""

    def pid() -> int | None:
        return next((each.pid for each in processes.look(stack.data_dir).programs if each.name == program.name), None)

    before, end = pid(), time.monotonic() + _RELOAD_S
    if before is not None:
        os.kill(before, signal.SIGTERM)
    while pid() in {None, before} or not http.is_ready(program.ready_url):
        if time.monotonic() > end:
            raise StackError(f"{program.name} is not ready again: {http.unready_reasons(program.ready_url)}")
        reason = "ending its work" if pid() == before else _condition(stack, program)
        if is_hopeless(program, reason):
            raise StackError(f"{program.name}: {reason} (see {folder.shown(processes.log_file(stack, program.name))})")
        progress.waiting({program.name: reason})
        time.sleep(_POLL_S)
    progress.done(program.name, "reloaded")


def _condition(stack: Stack, program: Program) -> str:
    return why_not_ready(stack, program) or "ready"
