"""Agents without Ray: what one does on a machine that sees the comparison folder, and on one that does not."""

import json
import signal
import threading

import pytest

pytest.importorskip("trl")

from cegm.durable import sole_writer
from cegm.lab.compare import agent as module
from cegm.lab.compare.agent import MARK, Agent, identity, own_folder, require_same
from pretended import DiesOnce, PretendedProcess, Sleeper

NAME = "adamw-seed0-abc"
LINE = {"id": "abc"}


@pytest.fixture(autouse=True)
def pretended(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LocalProcess", PretendedProcess)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MARK).write_text("word")
    return tmp_path / "out"


def started(folder, mark, expected=None):
    agent = Agent()
    return agent, agent.start(str(folder), mark, NAME, LINE, str(folder.parent), expected or identity())


def followed(agent):
    """The exit code, and all that was told until then."""
    told = {}
    for _ in range(3000):
        code, written = agent.news()
        for name, text in written.items():
            told[name] = told.get(name, b"") + text
        if code is not None:
            return code, {name: told[name] + text for name, text in agent.news().written.items()}
    raise AssertionError("it did not end")


def test_where_the_folder_is_seen_it_is_written_into_and_nothing_is_told(folder):
    agent, shared = started(folder, "word")
    assert shared
    assert followed(agent) == (0, {})
    assert json.loads(agent.read("result.json", 0)) == {"id": "abc", "status": "finished", "tries": 1}
    agent.close()
    assert (folder / "runs" / NAME / "result.json").exists()
    assert not own_folder("word").exists()


@pytest.mark.parametrize("word", [None, "another"])
def test_a_folder_of_the_same_name_elsewhere_is_not_mistaken_for_it(folder, word):
    (folder / MARK).unlink()
    if word is not None:
        (folder / MARK).write_text(word)
    agent, shared = started(folder, "word")
    assert not shared
    code, told = followed(agent)
    assert code == 0
    assert told == {"log.txt": b"try 1\n", "metrics.jsonl": b'{"kind": "train", "step": 7}\n'}
    assert not (folder / "runs").exists()
    agent.close()


def test_files_are_handed_over_whole_in_pieces_and_then_removed(folder, monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    agent, _ = started(folder, "elsewhere")
    assert followed(agent)[0] == 0
    sizes = agent.files()
    assert set(sizes) == {"result.json", "metrics.jsonl", "tries", "empty", "model/weights"}
    assert sizes["empty"] == 0
    pieces = [agent.read("model/weights", offset) for offset in (0, 1000, 2000)]
    assert [len(piece) for piece in pieces] == [1000, 1000, 560]
    assert b"".join(pieces) == bytes(range(256)) * 10
    agent.close()
    assert not (own_folder("elsewhere") / NAME).exists()


def test_what_a_later_try_can_go_on_from_stays_and_its_log_is_not_told_twice(folder, monkeypatch):
    monkeypatch.setattr(module, "LocalProcess", DiesOnce)
    first, _ = started(folder, "elsewhere")
    code, told = followed(first)
    assert (code, told["log.txt"]) == (1, b"try 1\nthe disk is full\n")
    first.close()
    second, _ = started(folder, "elsewhere")
    code, told = followed(second)
    assert (code, told["log.txt"]) == (0, b"try 2\n")
    assert json.loads(second.read("result.json", 0))["tries"] == 2
    second.close()


def test_closing_ends_a_run_that_still_goes_on(folder, monkeypatch):
    monkeypatch.setattr(module, "LocalProcess", Sleeper)
    agent, _ = started(folder, "word")
    assert agent.news().code is None
    agent.close()
    assert agent.news().code == -signal.SIGTERM
    agent.close()


def test_metrics_that_a_resumption_cuts_are_told_from_the_cut_on(folder, monkeypatch):
    monkeypatch.setattr(module, "LocalProcess", Sleeper)
    agent, _ = started(folder, "elsewhere")
    metrics = own_folder("elsewhere") / NAME / "metrics.jsonl"
    metrics.write_bytes(b"one\ntwo\nthree\n")
    assert agent.news().written["metrics.jsonl"] == b"one\ntwo\nthree\n"
    metrics.write_bytes(b"one\n")
    assert agent.news().written["metrics.jsonl"] == b""
    metrics.write_bytes(b"one\nTWO\n")
    assert agent.news().written["metrics.jsonl"] == b"TWO\n"
    agent.close()


def test_other_code_or_packages_are_refused_with_both_values_and_nothing_is_written(folder):
    with pytest.raises(ValueError, match=r"has torch \S+ instead of 9\.9; install the same on every machine"):
        started(folder, "word", {**identity(), "torch": "9.9"})
    assert not (folder / "runs").exists()
    require_same({"a": "1"}, {"a": "1", "b": "2"})
    with pytest.raises(ValueError, match="a None instead of 1"):
        require_same({"a": "1"}, {})


def test_it_waits_for_the_process_of_an_earlier_try_to_let_go(folder, monkeypatch):
    run_folder = folder / "runs" / NAME
    run_folder.mkdir(parents=True)
    held, free = threading.Event(), threading.Event()

    def hold():
        with sole_writer(run_folder):
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    monkeypatch.setattr(module, "FREE_SECONDS", 0.3)
    with pytest.raises(OSError, match="still written to by another process"):
        started(folder, "word")
    monkeypatch.setattr(module, "FREE_SECONDS", 60)
    threading.Timer(0.5, free.set).start()
    agent, _ = started(folder, "word")
    holder.join()
    assert followed(agent)[0] == 0
    agent.close()


def test_the_folder_of_its_own_is_for_this_user_alone(tmp_path):
    place = own_folder("word")
    assert place.parent.parent == tmp_path / "elsewhere"
    assert place.parent.stat().st_mode & 0o777 == 0o700
    place.parent.rmdir()
    (tmp_path / "theirs").mkdir()
    place.parent.symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="belongs to another user"):
        own_folder("word")
