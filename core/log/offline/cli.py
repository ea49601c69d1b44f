"""The offline commands of `python -m core`: init, verify, backup, restore, rebuild, history. `__main__` calls `run`.

verify, backup and history only read and may run beside a core; init, restore and rebuild take the log's lock. No
command starts a service. Exit codes: 0 done; 1 the log is wrong or the generation unknown; 2 the command could not be
carried out, such as when the log cannot be read or another process holds it.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from core.errors import LogBroken, LogUnusable
from core.log import queries, root_note
from core.log.connection import READ_ERRORS, assert_version, connect, connect_read_only, sqlite3, translated
from core.log.erased_file import ErasedFile
from core.log.files import LogFiles
from core.log.offline import backup, begin, history, rebuild, verify
from core.log.startup_checks import cannot_open, lost, misplaced
from infra.retry import Retryable


def run(argv: Sequence[str]) -> int:
    """Carry out one command and return the exit code."""
    options = _options(argv)
    out, err = sys.stdout, sys.stderr
    path = Path(options.data_dir) / "core" / "log.sqlite3"
    commands: dict[str, Callable[[Path, argparse.Namespace, TextIO], int]] = {
        "init": _init,
        "verify": _verify,
        "backup": _backup,
        "restore": _restore,
        "rebuild": _rebuild,
        "history": _history,
    }
    try:
        assert_version()
        if options.command not in {"restore", "init"} and not path.exists():
            raise LogUnusable(
                f"there is no event log {path}: name its data folder with --data-dir or DARKROOM_DATA_DIR"
            )
        return commands[options.command](path, options, out)
    except (LogUnusable, Retryable) as error:
        print(f"darkroom: {error}", file=err)
    except LogBroken as error:
        print(f"darkroom: the event log {path} is damaged: {error}", file=err)
        return 1
    except READ_ERRORS as error:
        print(f"darkroom: {cannot_open(path, error)}", file=err)
    return 2


def _options(argv: Sequence[str]) -> argparse.Namespace:
    shared = argparse.ArgumentParser(add_help=False)
    default = os.environ.get("DARKROOM_DATA_DIR", "var")
    shared.add_argument("--data-dir", default=default, help="the data folder (default: $DARKROOM_DATA_DIR, or var)")
    parser = argparse.ArgumentParser(
        prog="python -m core",
        description="Work on the event log; without a command, or with `serve`, core itself runs. "
        "verify, backup and history may run beside it, init, restore and rebuild may not. "
        "`python -m core dead-letters --help` is about the dead-letter queue, `erase --help` about erasing.",
        epilog="Exit codes: 0 as asked, 1 the log is wrong or the generation unknown, 2 it could not be looked at.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "init", parents=[shared], help="begin an empty history on purpose, where core refuses to; core must not run"
    )
    verifying = commands.add_parser("verify", parents=[shared], help="prove the log, or say where it is wrong")
    verifying.add_argument(
        "--expect",
        type=_place,
        metavar="POSITION:CHAIN",
        help="what an earlier verify printed: prove that the log has only grown since",
    )
    copying = commands.add_parser(
        "backup", parents=[shared], help="copy the log, beside a running core too, and verify it"
    )
    copying.add_argument(
        "to", type=Path, metavar="FILE", help="the new file; it holds the prompts, which are personal data"
    )
    restoring = commands.add_parser(
        "restore", parents=[shared], help="put a backup in the log's place; core must not run"
    )
    restoring.add_argument("source", type=Path, metavar="FILE", help="what backup made")
    restoring.add_argument("--replace", action="store_true", help="put a log that is there aside, and keep it")
    commands.add_parser("rebuild", parents=[shared], help="make the projection again from the log; core must not run")
    showing = commands.add_parser("history", parents=[shared], help="tell all that happened to one generation")
    showing.add_argument("id", help="the generation's id")
    showing.add_argument("--prompt", action="store_true", help="show its prompt too, which is personal data")
    return parser.parse_args(argv)


def _place(text: str) -> tuple[int, bytes]:
    match = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not what follows `head` in an earlier verify: POSITION:CHAIN")
    return int(match[1]), bytes.fromhex(match[2])


def _verify(path: Path, options: argparse.Namespace, out: TextIO) -> int:
    position, chain = options.expect or (0, b"")
    listed = list(_erased_file(path).pieces())  # before the log: core lists an id before it erases
    connection = connect_read_only(path)
    try:
        report = verify.check(connection, position)
        with suppress(*READ_ERRORS):  # the check has reported these
            missing = lost(connection, _files(path)) or misplaced(connection, _files(path))
            report.add(iter([f"the log {missing}"] if missing else []))
            report.add(_not_erased_again(connection, listed))
    finally:
        connection.close()
    if position:
        wrong = verify.expected(report, position, chain)
        report.add(iter([wrong] if wrong else []))
    for line in report.problems:
        print(line, file=out)
    if report.more_problems:
        print(f"and {report.more_problems} more", file=out)
    if report.turned_back:
        print(
            f"warning: times go back within {report.turned_back} generations: an earlier release wrote them while the "
            "clock stepped; nothing is lost by it",
            file=out,
        )
    count = len(report.problems) + report.more_problems
    print(
        f"{f'{count} problems' if count else 'ok'}: {_counts(report)}",
        file=out,
    )
    return 1 if count else 0


def _files(path: Path) -> LogFiles:
    """The files of a log in `DATA/core`."""
    return LogFiles(path, path.parent.parent / root_note.NAME)


def _init(path: Path, _: argparse.Namespace, out: TextIO) -> int:
    files = _files(path)
    with files.locked():
        of, aside = begin.init(files)
    if aside is not None:
        print(f"what was left of an earlier log is kept in {aside}", file=out)
    print(f"begun: an empty event log {path} ({of.log_id}); core takes it over the one noted in the bucket", file=out)
    return 0


def _erased_file(path: Path) -> ErasedFile:
    return ErasedFile(path.parent.parent)


def _not_erased_again(connection: "sqlite3.Connection", listed: Sequence[Sequence[str]]) -> Iterator[str]:
    for piece in listed:
        for generation_id in queries.not_erased(connection, piece):
            yield f"stream {generation_id}: is on the list of erasures and not erased: core does it at its next start"


def _backup(path: Path, options: argparse.Namespace, out: TextIO) -> int:
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // max(1, total)
        if sys.stderr.isatty() and percent != shown:
            shown = percent
            print(f"\rcopied {percent} %", end="\n" * (done == total), file=sys.stderr, flush=True)  # noqa: T201  (a person waits)

    report = backup.backup(path, options.to, progress)
    print(f"backed up to {options.to}: {_counts(report)}", file=out)
    return 0


def _restore(path: Path, options: argparse.Namespace, out: TextIO) -> int:
    files = _files(path)
    with files.locked():
        made = backup.restore(options.source, files, replace=options.replace, erased=_erased_file(path))
    print(f"restored from {options.source}: {_counts(made.report)}", file=out)
    if made.erased:
        print(f"{made.erased} generations that were erased after the backup are erased in it again", file=out)
    if made.aside is not None:
        print(f"the log that was there is kept in {made.aside}", file=out)
        if made.events_left is None:
            print("it cannot be read: what was accepted after the backup is unknown to core now", file=out)
        else:
            print(
                f"{made.events_left} later events, {made.generations_left} new generations among them, are only there: "
                "core knows nothing of them now",
                file=out,
            )
    return 0


def _counts(report: verify.Report) -> str:
    return (
        f"{report.events} events of {report.generations} generations ({report.open} open); "
        f"head {report.head.position}:{report.head.chain.hex()}"
    )


def _rebuild(path: Path, _: argparse.Namespace, out: TextIO) -> int:
    with _files(path).locked():
        connection = connect(path)
        try:
            made = rebuild.rebuild(connection)
        except sqlite3.Error as error:
            raise translated(error) from error
        finally:
            connection.close()
    print(
        f"rebuilt {made.generations} generations and {made.images} images from {made.events} events; "
        f"{made.differing} rows differed" + f", {made.prompts} prompts of erased ones deleted" * bool(made.prompts),
        file=out,
    )
    return 0


def _history(path: Path, options: argparse.Namespace, out: TextIO) -> int:
    connection = connect_read_only(path)
    try:
        stream = queries.stream(connection, options.id)
        kept = queries.prompts(connection, [options.id]).get(options.id)
    finally:
        connection.close()
    if not stream:
        print(f"no generation {options.id} in {path}", file=out)
        return 1
    for line in history.lines(stream, kept.prompts if kept and options.prompt else None):
        print(line, file=out)
    if options.prompt and kept is None:
        print("its prompt was erased", file=out)
    return 0
