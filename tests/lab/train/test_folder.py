import pytest

pytest.importorskip("trl")

from cegm.lab.train.folder import RunFolder


def test_a_refused_run_leaves_nothing_not_even_the_folders_above_it(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "mine")
    with pytest.raises(ValueError, match="refused"), folder.held(), folder.undone_on_error():
        folder.config.write_text("half")
        raise ValueError("refused")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_there_before_stays(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "log.txt").write_text("mine")
    with pytest.raises(ValueError, match="refused"), folder.undone_on_error():
        folder.writing.mkdir(parents=True)
        raise ValueError("refused")
    assert (tmp_path / "log.txt").read_text() == "mine"
    assert not folder.writing.exists()


def test_an_interruption_leaves_nothing_either(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), folder.held(), folder.undone_on_error():
        (folder.writing / "half").mkdir(parents=True)
        folder.metrics.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_is_to_stay_stays(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="late"), folder.held(), folder.undone_on_error() as keep:
        folder.config.write_text("whole")
        keep()
        raise ValueError("late")
    assert folder.config.read_text() == "whole"


def test_a_folder_that_is_held_is_refused_and_what_lies_in_it_stays(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.held():
        folder.writing.mkdir(parents=True)
        with pytest.raises(ValueError, match="another process is writing to"), folder.held():
            pass
        assert folder.writing.exists()
    assert folder.root.exists()


def test_what_a_killed_process_was_writing_goes(tmp_path):
    folder = RunFolder(tmp_path)
    (folder.writing / "checkpoint-3").mkdir(parents=True)
    with folder.held():
        assert not folder.writing.exists()
