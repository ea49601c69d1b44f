"""A local stack in bad surroundings: odd folders, a dead supervisor, changed settings, services that cannot start."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import folder, http, marks, processes
from tests.eventually import until
from tests.local_stack import MODELS, Local
from tests.storage.disk import SmallDisk, mounted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("local-stack")]

SMALL_BYTES = 600 * 1024


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    stack = Local(tmp_path)
    yield stack
    stack.run("down")
    assert stack.marked() == {}
    assert stack.ports_in_use() == []


def test_any_legal_name_of_a_folder_will_do(local: Local) -> None:
    name = "-a b;c ;d%(here)s %s $HOME `x` \"q\" 'q' ü\udcff\n#e"
    local.data_dir = local.folder / name
    local.environment["DARKROOM_DATA_DIR"] = str(local.data_dir)
    code, output, errors = local.run("up")
    assert (code, errors) == (0, "")
    assert local.run("demo", "a ring")[0] == 0
    assert re.search(r"^ok: \d+ events of 1 generations", local.run("run", "core", "verify")[1])
    assert "emulated" in local.run("logs", "worker", "--no-follow")[1]
    assert "up: http" in local.run("status")[1]
    assert "\n#e" not in output


def test_a_folder_of_which_the_services_cannot_be_told_apart_by_a_link_is_one_stack(local: Local) -> None:
    link = local.folder / "link"
    local.data_dir.mkdir()
    link.symlink_to(local.data_dir)
    assert local.run("up")[0] == 0
    local.environment["DARKROOM_DATA_DIR"] = str(link)
    assert "already up" in local.run("up")[1]


def test_services_are_found_and_stopped_when_their_supervisor_was_killed(local: Local) -> None:
    assert local.run("up")[0] == 0
    os.kill(local.supervisor(), signal.SIGKILL)
    until(lambda: marks.SUPERVISOR not in local.marked(), what="the supervisor is gone")
    code, output, _ = local.run("status")
    assert code == 1
    assert "supervisord has died" in output
    assert output.count("ready") == 4
    assert local.run("down")[:2] == (0, "stopped\n")
    assert local.marked() == {}


def test_services_without_supervisor_and_without_files_are_replaced_by_up(local: Local) -> None:
    assert local.run("up")[0] == 0
    before = local.marked()
    os.kill(local.supervisor(), signal.SIGKILL)
    (local.data_dir / "local" / "stack.json").unlink()
    (local.data_dir / "local" / "supervisord.conf").unlink()
    code, output, _ = local.run("up")
    assert code == 0
    assert "without their supervisor" in output
    after = local.marked()
    assert after.keys() == before.keys()
    assert {each.pid for each in after.values()}.isdisjoint(each.pid for each in before.values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Fails where the right to mount one is missing."""
    with mounted(tmp_path, SMALL_BYTES) as disk:
        yield disk


def test_a_full_disk_hides_no_service_from_status_down_and_up(small_disk: SmallDisk, local: Local) -> None:
    local.data_dir = small_disk.folder / "data"
    local.environment["DARKROOM_DATA_DIR"] = str(local.data_dir)
    code, output, errors = local.run("up")
    assert (code, errors) == (0, ""), output
    before = local.marked()
    small_disk.fill()
    os.kill(before["worker"].pid, signal.SIGKILL)  # supervisord logs the death and the new start
    until(lambda: local.marked().get("worker", before["worker"]) != before["worker"], what="another worker is started")
    assert local.supervisor() == before[marks.SUPERVISOR].pid, "a full disk does not end supervisord"
    code, output, _ = local.run("status")
    assert code == 0
    assert re.findall(r"^(\w+) +pid \d+", output, re.MULTILINE) == ["emulator", "core", "worker", "gateway"]
    assert local.run("up")[:2] == (0, f"already up: {local.url}\n")

    os.kill(local.supervisor(), signal.SIGKILL)
    until(lambda: marks.SUPERVISOR not in local.marked(), what="the supervisor is gone")
    assert "supervisord has died" in local.run("status")[1]
    assert local.run("down")[:2] == (0, "stopped\n")
    assert local.marked() == {}
    assert local.ports_in_use() == []

    code, _, errors = local.run("up")
    assert code == 2
    assert errors.count("\n") == 1
    assert re.search(r"No space left|free the disk", errors)
    assert local.marked() == {}, "what a failing start has started is stopped again"


def test_a_process_that_only_names_the_mark_is_not_ours(local: Local) -> None:
    mark = marks.mark(local.data_dir, "core")
    bystander = local.folder / "bystander.py"
    bystander.write_text("import sys; sys.stdin.read()")
    arguments = [[sys.executable, str(bystander), mark], [sys.executable, str(bystander), "-X", mark]]
    started = [subprocess.Popen(each, stdin=subprocess.PIPE) for each in arguments]
    try:
        assert local.marked() == {}
        assert local.run("down")[:2] == (0, "nothing was running\n")
        assert [each.poll() for each in started] == [None, None]
    finally:
        for each in started:
            each.communicate()


def test_up_with_other_settings_says_which_and_restart_uses_them(local: Local) -> None:
    assert local.run("up")[0] == 0
    local.environment["DARKROOM_LOCAL_GATEWAYS"] = "2"
    local.environment["DARKROOM_INTERNAL_TOKEN"] = "canary-secret"
    code, output, _ = local.run("up")
    assert code == 1
    assert "DARKROOM_LOCAL_GATEWAYS: not set → '2'" in output
    assert "DARKROOM_INTERNAL_TOKEN: not set → (a secret)" in output
    assert "canary" not in output
    assert "just restart" in output
    local.environment["DARKROOM_LOG_LEVEL"] = "loud"  # a restart that cannot succeed stops nothing
    assert local.run("restart")[0] == 2
    assert local.marked()
    del local.environment["DARKROOM_LOG_LEVEL"]
    del local.environment["DARKROOM_LOCAL_GATEWAYS"]
    del local.environment["DARKROOM_INTERNAL_TOKEN"]
    assert local.run("restart")[0] == 0
    assert local.run("up")[:2] == (0, f"already up: {local.url}\n")


def test_reload_reads_the_models_file_again_and_loses_nothing(local: Local) -> None:
    models = local.folder / "models.toml"
    assert local.run("up")[0] == 0
    before = local.marked()
    models.write_text(MODELS + MODELS.replace('"emulated"', '"second"', 1))
    code, output, _ = local.run("up")
    assert code == 1
    assert "DARKROOM_MODELS_FILE" in output
    assert "just reload" in output
    code, output, errors = local.run("reload")
    assert (code, errors) == (0, "")
    assert "models: emulated, second" in output
    after = local.marked()
    assert after["core"] == before["core"]
    assert after["emulator"] == before["emulator"]
    assert after["worker"] != before["worker"]
    assert after["gateway"] != before["gateway"]
    assert local.run("up")[:2] == (0, f"already up: {local.url}\n")

    models.write_text(MODELS.replace("step_ms", "stepms"))
    code, _, errors = local.run("reload")
    assert code == 2
    assert "stepms" in errors
    assert local.marked() == after


def test_a_model_that_cannot_be_loaded_is_told_with_its_cause(local: Local) -> None:
    (local.folder / "empty").mkdir()
    (local.folder / "models.toml").write_text('[[models]]\nname = "none"\nsource = "empty"\n')
    code, output, errors = local.run("up")
    assert code == 1
    assert errors.count("\n") == 1
    assert "model none" in errors
    assert "model_index.json" in output + errors, "the cause"


def test_a_model_without_weights_leaves_the_others_served(local: Local) -> None:
    missing = '[[models]]\nname = "none"\nsource = "nowhere"\n'
    (local.folder / "models.toml").write_text(missing + MODELS)
    code, output, errors = local.run("up")
    assert (code, errors) == (0, ""), output
    assert re.search(r"^! model 'none' is left out: nowhere is no folder", output, re.MULTILINE)
    assert local.run("status")[0] == 0
    headers = {"Authorization": f"Bearer {(local.data_dir / 'api-key').read_text().strip()}"}
    body = {"prompt": "a ring", "model": "emulated"}
    answer = http.call("POST", f"{local.url}/v1/generations", headers=headers, body=body)
    assert answer.status == 202, answer.body
    link = f"{local.url}/v1/generations/{answer.json()['id']}"
    until(lambda: http.call("GET", link, headers=headers).json()["status"] == "succeeded", 60, what="it is rendered")


def test_a_read_only_folder_is_told_in_one_line(local: Local) -> None:
    local.environment["DARKROOM_DATA_DIR"] = "/proc/darkroom"
    code, _, errors = local.run("up")
    assert code == 2
    assert errors.count("\n") == 1
    assert "/proc/darkroom" in errors


def test_a_path_too_long_for_the_log_is_told_in_one_line(local: Local) -> None:
    local.environment["DARKROOM_DATA_DIR"] = str(local.folder / ("x" * 200) / ("y" * 200) / ("z" * 100))
    code, _, errors = local.run("up")
    assert code == 2
    assert errors.count("\n") == 1
    assert "DARKROOM_DATA_DIR" in errors


def test_the_longest_path_works(local: Local) -> None:
    head = str(local.folder / "x")
    rest = folder.LONGEST_PATH_BYTES - len(head)
    local.data_dir = Path(head + "x" * 150 + "/" + "y" * 150 + "/" + "z" * (rest - 302))
    local.environment["DARKROOM_DATA_DIR"] = str(local.data_dir)
    assert len(str(local.data_dir)) == folder.LONGEST_PATH_BYTES
    assert local.run("up")[0] == 0


def test_two_commands_do_not_start_one_stack_at_once(local: Local) -> None:
    first, second = local.start("up"), local.start("up")
    outcomes = []
    for process in (first, second):
        output, errors = process.communicate(timeout=200)
        outcomes.append((process.returncode, output + errors))
    assert [code for code, _ in outcomes].count(0) >= 1
    for code, said in outcomes:
        assert code == 0 or "another command" in said
    assert len(processes.look(local.data_dir).programs) == 4
