"""What is remembered of loads across lives of a worker. A life that ends is a process that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.eventually import until
from worker.gpu.models.load_marks import LoadMarkFiles

DYING = """
import sys, time
from pathlib import Path
from worker.gpu.models.load_marks import LoadMarkFiles
with LoadMarkFiles(Path(sys.argv[1])) as marks:
    marks.begin(sys.argv[2])
    print("loading", flush=True)
    time.sleep(600)
"""


def begin(folder: Path, model: str) -> "subprocess.Popen[str]":
    """A life that loads the model."""
    command = [sys.executable, "-c", DYING, str(folder), model]
    life = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert life.stdout is not None
    assert life.stdout.readline() == "loading\n"
    return life


def kill(life: "subprocess.Popen[str]") -> None:
    life.send_signal(signal.SIGKILL)
    life.wait()
    assert life.stdout is not None
    life.stdout.close()


def test_lives_that_ended_while_they_loaded_are_counted_until_a_load_comes_to_an_end(tmp_path: Path) -> None:
    for deaths in (1, 2, 3):
        kill(begin(tmp_path, "a/b"))
        with LoadMarkFiles(tmp_path) as marks:
            assert marks.left() == {"a/b": deaths}
        with LoadMarkFiles(tmp_path) as marks:
            assert marks.left() == {"a/b": deaths}, "looking counts nothing"
    with LoadMarkFiles(tmp_path) as marks:
        marks.begin("a/b")
        marks.end("a/b")
    with LoadMarkFiles(tmp_path) as marks:
        assert marks.left() == {}
    assert not list(tmp_path.iterdir())


def test_a_load_of_a_worker_that_lives_is_not_taken_for_one_that_ended(tmp_path: Path) -> None:
    life = begin(tmp_path, "m")
    with LoadMarkFiles(tmp_path) as marks:
        assert marks.left() == {}
    kill(life)
    with LoadMarkFiles(tmp_path) as marks:
        assert marks.left() == {"m": 1}


def test_who_is_told_to_stop_in_the_middle_of_a_load_leaves_nothing(tmp_path: Path) -> None:
    with LoadMarkFiles(tmp_path) as marks:
        marks.begin("m")
    assert not list(tmp_path.iterdir())


def test_who_ends_with_an_error_leaves_its_mark(tmp_path: Path) -> None:
    try:
        with LoadMarkFiles(tmp_path) as marks:
            marks.begin("m")
            raise RuntimeError("hung")
    except RuntimeError:
        pass
    (descriptor, _) = marks._open["m"]
    os.close(descriptor)  # as the end of the process does
    with LoadMarkFiles(tmp_path) as again:
        assert again.left() == {"m": 1}


def test_a_folder_that_takes_nothing_costs_the_memory_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with LoadMarkFiles(file / "loads") as marks:
        marks.begin("m")
        marks.end("m")
        assert marks.left() == {}


def test_rubbish_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "y.json").write_text("[1]")
    (tmp_path / "z.json").write_bytes(b"\xff")
    kill(begin(tmp_path, "m"))
    with LoadMarkFiles(tmp_path) as marks:
        until(lambda: marks.left() == {"m": 1})
