import os
import signal

import pytest

pytest.importorskip("yaml")

from cegm.lab.compare import launch
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.execute import launching
from cegm.lab.compare.plan import plan_main
from pretended import PretendedProcess, Sleeper


class Deaf(PretendedProcess):
    """Does not end when it is asked to."""

    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )


def test_local_slots_are_what_was_asked_for_or_one_per_core():
    with launching("local", 5) as launcher:
        assert launcher.slots() == 5
    with launching("local", 0) as launcher:
        assert launcher.slots() == os.cpu_count()


def test_the_process_of_a_run_gets_its_folder_its_line_one_thread_and_a_pipe(tmp_path, monkeypatch):
    seen = {}

    class Popen:
        def __init__(self, command, **options):
            seen.update(options, command=command)

    monkeypatch.setattr(launch.subprocess, "Popen", Popen)
    planned = plan_main(from_names(CompareConfig, {"max_steps": 3, "seeds": "1", "methods": "adamw"}))[0]
    launch.LocalLauncher(1).start(tmp_path, planned)
    assert seen["command"][1:4] == ["-m", "cegm.lab.compare.worker", str(tmp_path / "runs" / planned.name)]
    assert seen["env"]["OMP_NUM_THREADS"] == "1"
    assert seen["env"]["PYTHONIOENCODING"] == "utf-8"
    assert seen["stdin"] == launch.subprocess.PIPE
    assert seen["stdout"].name == seen["stderr"].name == str(tmp_path / "runs" / planned.name / "log.txt")


def test_the_log_of_an_earlier_try_is_continued(tmp_path):
    for _ in range(2):
        process = PretendedProcess(tmp_path, {"id": "a"})
        assert process.wait(60) == 0
        process.close()
    assert (tmp_path / "log.txt").read_text() == "try 1\ntry 2\n"


def test_the_log_of_a_run_is_utf_8_whatever_the_terminal_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code = "from cegm.lab import streams\nwith streams.readable(): print('\\N{MINUS SIGN} \\N{LATIN SMALL LETTER E WITH ACUTE}')"
    monkeypatch.setattr(launch, "WORKER", ["-c", code])
    process = launch.LocalProcess(tmp_path, {"id": "a"})
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
