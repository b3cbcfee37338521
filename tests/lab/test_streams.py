"""Words on the way out: any terminal, any encoding, readers that leave, files in UTF-8."""

from __future__ import annotations

import ast
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cegm.lab import cli, streams

PACKAGE = Path(streams.__file__).parents[1]
SIGNS = (
    "a \N{MINUS SIGN} b \N{EN DASH} 3 \N{MULTIPLICATION SIGN} \N{RIGHTWARDS ARROW} "
    "\N{LEFT DOUBLE QUOTATION MARK}x\N{RIGHT DOUBLE QUOTATION MARK} \N{HORIZONTAL ELLIPSIS}"
)
PLAIN = 'a - b - 3 x -> "x" ...'
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def python(code: str, *, shell: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs code in a process of its own, its words sent through a piece of shell."""
    quoted = f'{sys.executable} -c "$CODE" {shell}'
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    given |= {"CODE": code, "PYTHONPATH": str(PACKAGE.parent), **environment}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", quoted], env=given, capture_output=True, timeout=60, check=False
    )


def printed(*, words: str = SIGNS, **environment: str) -> tuple[bytes, bytes]:
    """What arrives of words that are printed to both streams."""
    code = f"import sys\nfrom cegm.lab import streams\nwith streams.readable():\n    print({words!a})\n    print({words!a}, file=sys.stderr)"
    done = python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix(b"\n"), done.stderr.removesuffix(b"\n")


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "ascii:strict"}, ASCII_LOCALE]
)
def test_a_terminal_that_knows_ascii_alone_shows_plain_signs(environment: dict[str, str]) -> None:
    assert printed(**environment) == (PLAIN.encode(), PLAIN.encode())


def test_a_terminal_keeps_the_signs_that_it_has() -> None:
    assert printed(PYTHONIOENCODING="utf-8")[0].decode() == SIGNS
    windows, latin = (printed(PYTHONIOENCODING=name)[0].decode(name) for name in ("cp1252", "latin-1"))
    assert windows == SIGNS.replace("\N{MINUS SIGN}", "-").replace("\N{RIGHTWARDS ARROW}", "->")
    assert latin.startswith('a - b - 3 \N{MULTIPLICATION SIGN} -> "x"')


def test_bars_and_tables_stay_recognisable() -> None:
    lines = "\N{BOX DRAWINGS LIGHT DOWN AND RIGHT}\N{BOX DRAWINGS HEAVY HORIZONTAL}\N{BOX DRAWINGS LIGHT VERTICAL}"
    drawn = f"{lines}\N{FULL BLOCK}\N{NO-BREAK SPACE}|"
    assert printed(words=drawn, PYTHONIOENCODING="ascii")[0] == b"+-|# |"


def test_letters_of_a_name_are_escaped_not_lost() -> None:
    assert printed(words="caf\xe9 \u65e5 \U0001f917", PYTHONIOENCODING="ascii")[0] == b"caf\\xe9 \\u65e5 \\U0001f917"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp932"])
def test_a_name_of_a_file_that_is_no_text_can_be_printed(encoding: str) -> None:
    assert printed(words="out_\udcff", PYTHONIOENCODING=encoding)[0] == b"out_\\xff"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "utf-16"])
def test_every_sign_of_every_plane_can_be_printed(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=streams.SPELT)
    stream.write("".join(map(chr, [*range(0x20, 0x3000), *range(0xD800, 0xE000), 0xFFFD, 0x1F917, 0x10FFFF])))
    stream.flush()


def test_every_plain_spelling_is_ascii() -> None:
    assert all(spelling.isascii() for spelling in streams.PLAIN.values())


def test_the_command_line_reconfigures_a_stream_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(cli, "_dispatch", lambda words: print(SIGNS) or 0)
    assert cli.main([]) == 0
    assert sys.stdout is stream
    assert stream.buffer.getvalue() == f"{PLAIN}\n".encode()  # type: ignore[attr-defined]


MAIN = "import sys\nfrom cegm.lab import cli\ndef dispatch(words):\n    {}\n    return 3\ncli._dispatch = dispatch\nsys.exit(cli.main([]))"


@pytest.mark.parametrize(
    ("shell", "stream"), [("| head -1", "stdout"), ("2>&1 | head -1", "stderr"), ("| true", "stdout")]
)
def test_a_reader_who_leaves_stops_nobodys_work(shell: str, stream: str) -> None:
    work = f"for each in range(200_000): print('a line of words', file=sys.{stream})"
    done = python(MAIN.format(work), shell=shell)
    assert (done.returncode, done.stderr) == (3, b"")


def test_help_may_be_read_in_part() -> None:
    done = python("import sys\nfrom cegm.lab.cli import main\nsys.exit(main(['train', '--help']))", shell="| head -1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full here")
def test_a_full_disk_is_one_line_and_not_success() -> None:
    for work in ("print('few')", "print('many ' * 100_000)"):
        done = python(MAIN.format(work), shell="> /dev/full")
        assert (done.returncode, done.stderr) == (2, b"cegm: error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_were_closed_before_are_no_error(shell: str) -> None:
    done = python(MAIN.format("print('words')"), shell=shell)
    assert done.returncode == 3
    assert done.stderr == b""


def test_a_terminal_that_is_gone_stops_nobodys_work() -> None:
    master, slave = pty.openpty()
    work = "print('ready', flush=True)\n    sys.stdin.read()\n    [print('words', flush=True) for _ in range(9)]"
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN.format(work)],
        stdin=subprocess.PIPE, stdout=slave, stderr=slave, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert os.read(master, 100).startswith(b"ready")
    os.close(slave)
    os.close(master)
    process.communicate()  # closes its input, upon which it goes on
    assert process.returncode == 3


def test_the_streams_of_the_process_come_back() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), streams.readable():
        raise KeyError
    assert (sys.stdout, sys.stderr) == before


def _names_no_encoding(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes text in whatever encoding the locale has."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    named = {keyword.arg for keyword in call.keywords}
    if "encoding" in named or (isinstance(function, ast.Attribute) and ast.unparse(function) == "os.open"):
        return False
    if name in ("run", "Popen", "check_output") and named & {"text", "universal_newlines"}:
        return True
    if name == "open":
        place = 0 if isinstance(function, ast.Attribute) else 1
        mode = call.args[place] if len(call.args) > place else None
        return not (mode is not None and "b" in ast.unparse(mode))
    if not isinstance(function, ast.Attribute):
        return False
    return len(call.args) < {"read_text": 1, "write_text": 2}.get(name, 0)


def test_every_text_file_of_the_package_is_read_and_written_in_a_named_encoding() -> None:
    places = [
        *PACKAGE.rglob("*.py"),
        *PACKAGE.parents[1].glob("benchmarks/*.py"),
        *PACKAGE.parents[1].glob("examples/*.py"),
    ]
    found = [
        f"{path.name}:{node.lineno}"
        for path in places
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _names_no_encoding(node)
    ]
    assert len(places) > 150
    assert found == []
