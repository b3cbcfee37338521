"""Lets pages of the site link to files of the repository that lie outside of `docs/`: mkdocs.yml has this as a hook.

What a page links to comes along below `repository/`: a page as a page, a folder as its README or a list of its files,
anything else as it is. Links are rewritten; pages in the repository stay as they are.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME = "repository"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]+)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the pages link to, and what those pages link to."""
    waiting = [file for file in files if file.src_uri.endswith(".md")]
    while waiting:
        page = waiting.pop()
        for link, _ in LINK.findall(page.content_string):
            target = _target(page.src_uri, link)
            if target is not None and files.get_file_from_path(_place(target)) is None:
                files.append(_file(target, config))
                if _place(target).endswith(".md"):
                    waiting.append(files.src_uris[_place(target)])
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Points links at what has come along."""

    def rewritten(found: re.Match[str]) -> str:
        target = _target(page.file.src_uri, found[1])
        if target is None:
            return found[0]
        return posixpath.relpath(_place(target), posixpath.dirname(page.file.src_uri) or ".") + (found[2] or "")

    return LINK.sub(rewritten, markdown)


def _target(source: str, link: str) -> Path | None:
    """The file or folder of the repository that a page of the site links to; None if there is none."""
    home = ROOT / source.removeprefix(f"{HOME}/") if source.startswith(f"{HOME}/") else ROOT / "docs" / source
    target = (home.parent / link).resolve()
    return target if target.exists() and target.is_relative_to(ROOT) else None


def _place(target: Path) -> str:
    """Where it lies in the site."""
    if target.is_dir():
        target /= "README.md"
    path = target.relative_to(ROOT)
    return path.relative_to("docs").as_posix() if path.parts[0] == "docs" else f"{HOME}/{path.as_posix()}"


def _file(target: Path, config: MkDocsConfig) -> File:
    readme = target / "README.md"
    if target.is_dir() and not readme.exists():
        names = sorted(f"{each.name}{'/' * each.is_dir()}" for each in target.iterdir())
        title = target.relative_to(ROOT).as_posix()
        return File.generated(
            config, _place(target), content="\n".join([f"# {title}", "", *(f"- `{n}`" for n in names), ""])
        )
    return File.generated(config, _place(target), abs_src_path=str(readme if target.is_dir() else target))
