"""Waiting until a stack that is starting is ready, and saying at once why it will not be."""

import re
import time
from collections import Counter
from collections.abc import Sequence

from infra.lifecycle import ConfigError
from infra.local import folder, http
from infra.local.emulator_lock import ALIVE_PATH
from infra.local.layout import Program, Stack
from infra.local.marks import SUPERVISOR
from infra.local.processes import StackError, Started, log_file, read_key
from infra.local.progress import Progress
from infra.local.tail import config_error_text, error_summary

START_DEADLINE_S = 120.0
_LOADING_DEADLINE_S = 1_800.0  # for a worker that says what it does: a download, or a large model from a slow disk
_POLL_S = 0.1
_MOST_DEATHS = 3
_HOPELESS = re.compile(r"no model can be used: .*is broken")  # a worker that has given up
_EXITED = re.compile(r"exited: (\S+) \((.*?)[;)]")
KEY = "key"


class Watch:
    """Reads the logs of a starting stack: errors go to `progress`; one that rules out a start is raised."""

    def __init__(self, started: Started, progress: Progress) -> None:
        self._started = started
        self._progress = progress
        self._deaths: Counter[str] = Counter()
        self._told: dict[str, str] = {}

    def look(self) -> None:
        """Raises ConfigError when a service cannot start with these settings, StackError when one dies again and again
        or supervisord has ended.
        """
        for name, tail in self._started.tails.items():
            for line in tail.lines():
                if name == SUPERVISOR:
                    self._died(line)
                elif said := config_error_text(line):
                    raise ConfigError(f"{name} cannot start: {said}")
                elif (said := error_summary(line)) and self._told.get(name) != said:
                    self._told[name] = said
                    self._progress.note(f"{name}: {said}")
        if self._started.process.poll() is not None:
            out = self._started.stack.logs / "supervisord.out"
            raise StackError(f"supervisord has ended; see {folder.shown(out)}")

    def look_at_workers(self) -> None:
        """Raises StackError for a worker that has given its model up."""
        for program in self._started.stack.programs():
            if program.module[0] == "worker":
                self.look_at(program, http.unready_reasons(program.ready_url))

    def look_at(self, program: Program, reason: str) -> None:
        """Raises StackError if waiting cannot help: the worker's `reason` says that it has given its model up."""
        if is_hopeless(program, reason):
            log = folder.shown(log_file(self._started.stack, program.name))
            raise StackError(f"{program.name}: {reason} (see {log})")

    def _died(self, line: str) -> None:
        found = _EXITED.search(line)
        if found is None:
            return
        name, how = found[1], found[2]
        self._deaths[name] += 1
        log = folder.shown(log_file(self._started.stack, name))
        said = self._told.get(name) or _last_line(self._started.stack, name) or how
        if self._deaths[name] >= _MOST_DEATHS:
            raise StackError(f"{name} has ended {_MOST_DEATHS} times while it started: {said} (see {log})")
        if name not in self._told:
            self._progress.note(f"{name} has ended ({how}) and is started again: {said}")


def is_hopeless(program: Program, reason: str) -> bool:
    """Whether a worker's reason is that it has given a model up."""
    return program.module[0] == "worker" and _HOPELESS.search(reason) is not None


def wait_ready(started: Started, programs: Sequence[Program], progress: Progress, *, notice: bool = True) -> None:
    """Returns once each program says that it is ready. Raises StackError with what is missing, and why."""
    begun = time.monotonic()
    watch = Watch(started, progress)
    pending = {program.name: "" for program in programs}
    by_name = {program.name: program for program in programs}
    while pending:
        watch.look()
        for name in list(pending):
            pending[name] = why_not_ready(started.stack, by_name[name])
            if not pending[name]:
                del pending[name]
                if notice:
                    progress.done(name)
            else:
                watch.look_at(by_name[name], pending[name])
        _check_deadline(started, pending, time.monotonic() - begun)
        if pending:
            progress.waiting(pending)
            time.sleep(_POLL_S)
    if any(program.module == ("gateway",) for program in programs):
        _wait_key(started, progress, watch, notice=notice)


def _wait_key(started: Started, progress: Progress, watch: Watch, *, notice: bool) -> None:
    begun = time.monotonic()
    while not http.key_is_accepted(started.stack.url, read_key(started.stack)):  # a gateway looks once a second
        watch.look()
        if time.monotonic() - begun > START_DEADLINE_S:
            raise StackError(f"the gateway does not accept the key in {started.stack.api_key_file}")
        progress.waiting({KEY: "the gateway has yet to see it"})
        time.sleep(_POLL_S)
    if notice:
        progress.done(KEY)


def _check_deadline(started: Started, pending: dict[str, str], waited_s: float) -> None:
    silent = {name: reason for name, reason in pending.items() if not (name.startswith("worker") and "load" in reason)}
    late = silent if waited_s > START_DEADLINE_S else {}
    late = late or (pending if waited_s > _LOADING_DEADLINE_S else {})
    if late:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in late.items())
        raise StackError(f"not ready after {waited_s:.0f} s: {reasons}; see {started.stack.logs}")


def why_not_ready(stack: Stack, program: Program) -> str:
    """Why the program is not ready; empty when it is."""
    if not program.ready_url:
        return "" if http.is_ready(f"{stack.emulator_url}{ALIVE_PATH}") else "does not answer"
    if http.is_ready(program.ready_url):
        return ""
    return http.unready_reasons(program.ready_url)


def _last_line(stack: Stack, name: str) -> str:
    try:
        with log_file(stack, name).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
