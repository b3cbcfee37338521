"""Text from data, run names and paths that wants to be code: in every page it is text, and the charts' blocks stay what they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from cegm import explanation_page as explanation
from cegm.explanation import AlignedText, Explanation
from cegm.lab.report import page
from cegm.lab.report.runs import Run, read
from drawing import examples
from pages import Page

CLOSERS = [
    "<script>alert(1)</script>", "</script><script>alert(1)//", "</style><img src=x onerror=alert(1)>", "<!--<script>", "]]>",
    "' onload='x", '" autofocus x="', "&lt;b&gt;", "{{ 7 * 7 }}", "{% raw %}", "${alert(1)}", "javascript:alert(1)",
    "\u2028alert(1)", "\x00", "\u202egnp", "`", "\\u003cscript\\u003e",
]  # fmt: skip
HOSTILE = st.sampled_from(CLOSERS) | st.tuples(st.sampled_from(CLOSERS), st.text(max_size=5)).map("".join)


@pytest.fixture(autouse=True, scope="module")
def without_library() -> Any:
    """Bundling the chart library takes seconds; what it is made of is not text of a user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "library", str)
        yield


@pytest.fixture(scope="module")
def run(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = next(path for path in sorted((comparison / "runs").glob("cegm-seed0*")) if "equal" not in path.name)
    return Path(shutil.copytree(source, tmp_path_factory.mktemp("run") / "run"))


def tags(text: str, place: Path) -> tuple[list[Any], Page]:
    """Every tag with the names of its attributes, and the page; a name that is no text of the page shows here."""
    place.write_text(text, encoding="utf-8")
    found = Page(place)
    return [(tag, tuple(attributes)) for tag, attributes in found.tags], found


@examples(4, suppress_health_check=list(HealthCheck))
@given(hostile=HOSTILE)
def test_a_run_of_hostile_names_has_the_page_of_a_harmless_one(
    run: Path, harmless_run: list[Any], tmp_path: Path, hostile: str
) -> None:
    """Name of the run, its model, data, options, layers and error; tags and attributes are those of a harmless run."""
    found, read_back = tags(drawn(run, hostile), tmp_path / "page.html")
    assert found == harmless_run
    assert all(isinstance(chart, dict) for chart in read_back.charts.values())
    assert "http" not in {str(value)[:4] for _, attributes in read_back.tags for value in attributes.values()}


@pytest.fixture(scope="module")
def harmless_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return tags(drawn(run, "harmless"), tmp_path_factory.mktemp("harmless") / "page.html")[0]


@pytest.fixture(scope="module")
def harmless_comparison(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return tags(drawn(comparison, "harmless"), tmp_path_factory.mktemp("harmless") / "page.html")[0]


def drawn(place: Path, text: str) -> str:
    """The page of a run or a comparison with a text in every place of every run that a user can fill."""
    folder = read(place)
    for one in folder.runs:
        fill(one, text)
    return page.render(folder)


def fill(one: Run, text: str) -> None:
    one.name, one.error = text, text
    one.config = json.loads(json.dumps(one.config))
    for name in ("model_name_or_path", "data", "output_dir"):
        one.config["config"][name] = text
    one.config["config"]["optimizer_options"] = {"scores": text}
    one.config["hardware"] = text
    for line in one.train:
        if "layers" in line:
            line["layers"] = {f"{text}.{place}": own for place, own in enumerate(list(line["layers"].values())[:3])}


@examples(2, suppress_health_check=list(HealthCheck))
@given(hostile=HOSTILE)
def test_a_comparison_of_hostile_data_has_the_page_of_a_harmless_one(
    comparison: Path, harmless_comparison: list[Any], tmp_path: Path, hostile: str
) -> None:
    """Names, data and errors of all runs."""
    assert tags(drawn(comparison, hostile), tmp_path / "page.html")[0] == harmless_comparison


@examples(25, suppress_health_check=list(HealthCheck))
@given(hostile=st.lists(HOSTILE, min_size=3, max_size=3))
@example(hostile=["<script>alert(1)</script>\n", "words", "here"])
@example(hostile=["harmless", "words", "<script>alert(1)</script>\n"])
@example(hostile=["]]>\r\n", "\n<!--<script>", "\n\n"])
def test_an_explanation_of_hostile_text_has_the_page_of_a_harmless_one(tmp_path: Path, hostile: list[str]) -> None:
    """Tokens, names of layers, and reasons why a layer was left out; where a token ends a line, so does the harmless one."""
    harmless = [
        word + "\n" * ("\n" in token) for word, token in zip(("harmless", "words", "here"), hostile, strict=True)
    ]
    pages = []
    for first, second, third in (harmless, hostile):
        scores = torch.tensor([[0.5, -0.25, 0.1]])
        told = Explanation((AlignedText((first, second, third), scores),), (second,), 1.25, {third: first})
        pages.append(tags(explanation.render(told), tmp_path / "page.html"))
    assert pages[0][0] == pages[1][0]


def test_a_configuration_on_disk_is_text_in_the_page(run: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(run, tmp_path / "<b>run"))
    values = yaml.safe_load((place / "config.yaml").read_text())
    values["config"]["data"] = "</script><script>alert(1)</script>"
    (place / "config.yaml").write_text(yaml.safe_dump(values))
    text = page.render(read(place))
    assert "<script>alert(1)" not in text
    assert "<b>run" not in text
    assert "&lt;b&gt;run" in text
