import json
import os
import signal

import pytest

pytest.importorskip("yaml")

from cegm.lab.compare import launch
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.execute import launching
from cegm.lab.compare.plan import plan_main
from pretended import Deaf, PretendedProcess, Sleeper, Speaker, Told


def test_local_slots_are_what_was_asked_for_or_one_per_core():
    with launching("local", 5) as launcher:
        assert launcher.slots() == 5
    with launching("local", 0) as launcher:
        assert launcher.slots() == os.cpu_count()


def test_the_process_of_a_run_has_its_line_its_directory_and_one_thread(tmp_path):
    planned = plan_main(from_names(CompareConfig, {"max_steps": 3, "seeds": "1", "methods": "adamw"}))[0]
    (tmp_path / "elsewhere").mkdir()
    process = Told(tmp_path / "run", planned.line(), tmp_path / "elsewhere")
    assert process.wait(60) == 0
    process.close()
    directory, threads, line = json.loads((tmp_path / "run" / "log.txt").read_text())
    assert directory == str(tmp_path / "elsewhere")
    assert threads == "1"
    assert line == json.loads(json.dumps(planned.line()))


def test_what_a_run_is_given_leaves_the_environment_of_the_comparison_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = dict(os.environ)
    process = PretendedProcess(tmp_path, {"id": "a"})
    assert dict(os.environ) == before
    assert process.wait(60) == 0
    process.close()


def test_a_run_ends_with_the_comparison_that_started_it(tmp_path):
    process = Sleeper(tmp_path, {})
    process._pipe.close()  # as the end of this process would
    assert process.wait(60) == launch.ORPHANED


def test_the_log_of_an_earlier_try_is_continued(tmp_path):
    for _ in range(2):
        process = PretendedProcess(tmp_path, {"id": "a"})
        assert process.wait(60) == 0
        process.close()
    assert (tmp_path / "log.txt").read_text() == "try 1\ntry 2\n"


def test_the_log_of_a_run_is_utf_8_whatever_the_terminal_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = Speaker(tmp_path, {"id": "a"})
    assert process.wait(60) == 0
    process.close()
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "\N{MINUS SIGN} \N{LATIN SMALL LETTER E WITH ACUTE}\n"


def test_waiting_ends_when_the_time_is_over(tmp_path):
    process = Sleeper(tmp_path, {})
    assert process.wait(0.01) is None
    process.stop()
    process.close()
    assert process.poll() == -signal.SIGTERM


def test_a_process_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    process = Deaf(tmp_path, {})
    while not (tmp_path / "log.txt").read_text():
        assert process.wait(0.01) is None
    process.stop()
    process.close()
    assert process.poll() == -signal.SIGKILL
