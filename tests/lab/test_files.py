"""Which files of a folder are met, each once; what is no text is refused by what it seems to be."""

import bz2
import gzip
import io
import lzma
import os
import zipfile

import pytest

pytest.importorskip("yaml")

from cegm.lab.files import BROKEN, HIDDEN, MET, OTHER, ROWS, SPECIAL, decoded, text_files, told, walk


def names(folder):
    return [path.relative_to(folder).as_posix() for path in walk(folder)[0]]


def fill(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


def test_files_come_in_the_order_of_their_paths_whatever_the_case_of_their_suffix(tmp_path):
    fill(tmp_path, "b.txt", "a/z.MD", "a.txt", "C.TXT", "a/a/deep.Md")
    texts, left_out = text_files(tmp_path)
    assert texts == sorted(tmp_path / name for name in ("b.txt", "a/z.MD", "a.txt", "C.TXT", "a/a/deep.Md"))
    assert not left_out


def test_what_is_hidden_is_told_and_not_read_unless_it_is_the_folder_itself(tmp_path):
    folder = tmp_path / ".corpus"
    fill(folder, "a.txt", ".b.txt", ".git/x.txt", "sub/.ipynb_checkpoints/a-checkpoint.txt", "sub/._a.txt", "sub/c.txt")
    texts, left_out = text_files(folder)
    assert [path.name for path in texts] == ["a.txt", "c.txt"]
    assert sorted(left_out.pop(HIDDEN)) == [".b.txt", ".git", "sub/._a.txt", "sub/.ipynb_checkpoints"]
    assert not left_out


def test_other_kinds_are_told_apart(tmp_path):
    fill(tmp_path, "a.txt", "rows.JSONL", "rows.json", "a.txt.gz", "noext", "picture.png")
    _, left_out = text_files(tmp_path)
    assert left_out == {ROWS: ["rows.JSONL", "rows.json"], OTHER: ["a.txt.gz", "noext", "picture.png"]}


def test_links_lead_to_what_lies_elsewhere_once(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    fill(folder, "a.txt")
    fill(other, "far.txt", "deep/er.txt")
    (folder / "one").symlink_to(other)
    (folder / "two").symlink_to(other)
    (folder / "file.txt").symlink_to(other / "far.txt")
    found, left_out = walk(folder)
    assert len({path.resolve() for path in found}) == len(found) == 3
    assert len(left_out.pop(MET)) == 2
    assert not left_out


def test_a_file_is_read_where_it_lies_and_not_where_it_is_linked(tmp_path):
    fill(tmp_path, "z/lies.txt")
    (tmp_path / "a_link.txt").symlink_to(tmp_path / "z" / "lies.txt")
    assert names(tmp_path) == ["z/lies.txt"]


@pytest.mark.parametrize("target", [".", "..", "sub", "sub/back"])
def test_loops_end(tmp_path, target):
    folder = tmp_path / "folder"
    fill(folder, "sub/a.txt")
    (folder / "sub" / "back").symlink_to(folder / target)
    assert names(folder) == ["sub/a.txt"]


def test_what_is_linked_from_above_is_read_beside_what_lies_here(tmp_path):
    fill(tmp_path, "beside.txt", "folder/a.txt")
    (tmp_path / "folder" / "up").symlink_to("..")
    assert names(tmp_path / "folder") == ["a.txt", "up/beside.txt"]


def test_two_names_of_one_file_are_one_text(tmp_path):
    fill(tmp_path, "a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "b.txt")
    assert names(tmp_path) == ["a.txt"]


def test_links_to_nothing_and_pipes_do_not_stop_the_walk(tmp_path):
    fill(tmp_path, "a.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    os.mkfifo(tmp_path / "pipe.txt")
    found, left_out = walk(tmp_path)
    assert [path.name for path in found] == ["a.txt"]
    assert left_out == {SPECIAL: ["pipe.txt"], BROKEN: ["gone.txt", "self"]}


def test_the_words_name_a_few_and_count_all():
    assert (
        told({"empty": [f"{n}.txt" for n in range(9)], HIDDEN: [".git"]})
        == "9 empty (0.txt, 1.txt, 2.txt, ...), 1 hidden (.git)"
    )


def zipped(text):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", text)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"some text", mtime=0), r"compressed \(gzip\); unpack it"),
        (bz2.compress(b"some text"), r"compressed \(bzip2\); unpack it"),
        (lzma.compress(b"some text"), r"compressed \(xz\); unpack it"),
        (zipped("some text"), r"compressed \(zip\); unpack it"),
        ("words".encode("utf-16"), "UTF-16; convert it"),
        ("words".encode("utf-16-le"), "zero bytes"),
        ("words".encode("utf-32-be"), "zero bytes"),
        ("café".encode("latin-1"), r"byte 3\); convert it"),
        (bytes(range(256)), "not UTF-8 text"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_seems_to_be(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        decoded(path)
    assert "\n" not in str(raised.value)
    assert "a.txt" in str(raised.value)


def test_marks_and_line_ends_are_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xef\xbb\xbf")
    assert decoded(path) == "a\nb\nc\n\ufeff"
