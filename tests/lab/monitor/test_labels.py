"""Labels: what is picked, what is asked, and when they are enough to return the traffic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cegm.lab.monitor import labelling
from cegm.lab.monitor.labels import Label, evidence, picked
from cegm.lab.records import Request, line
from cegm.lab.rollout import rollout_state
from cegm.lab.rollout.kept_texts import KeptText
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import RolloutFolder
from cegm.lab.train.audit import read

Draw = Callable[..., Request]
Write = Callable[[list[Request]], None]


def labels_of(champion: list[bool], challenger: list[bool]) -> list[Label]:
    named = {"champion": champion, "challenger": challenger}
    return [
        Label(number=n, variant=variant, right=right, time="2026", who="x")
        for variant, given in named.items()
        for n, right in enumerate(given)
    ]


def both(draw: Draw, number: int) -> list[Request]:
    return [draw(number=number), draw(number=number, variant="challenger", shadow=True)]


def test_pairs_come_first_side_by_side_in_an_order_that_tells_nothing(draw: Draw) -> None:
    requests = [each for number in range(100) for each in both(draw, number)] + [draw() for _ in range(50)]
    found = picked(requests, set(), 50, seed=0)
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert len(pairs) == 25
    assert all(first.number == second.number and first.variant != second.variant for first, second in pairs)
    assert 5 < sum(first.variant == "champion" for first, _ in pairs) < 20


def test_without_pairs_as_many_of_each_variant_are_picked_and_none_that_failed_or_was_labelled(draw: Draw) -> None:
    requests = [draw(variant=variant) for _ in range(60) for variant in ("champion", "challenger")]
    requests += [draw(error="x", status=502) for _ in range(60)]
    labelled = {(each.number, each.variant) for each in requests[:20]}
    found = picked(requests, labelled, 50, seed=1)
    assert [sum(each.variant == variant for each in found) for variant in ("champion", "challenger")] == [25, 25]
    assert not any(each.error for each in found)
    assert not labelled & {(each.number, each.variant) for each in found}
    assert [each.number for each in picked(requests, labelled, 50, seed=1)] == [each.number for each in found]


def test_with_one_variant_alone_all_are_of_that(draw: Draw) -> None:
    assert len(picked([draw() for _ in range(80)], set(), 50, seed=0)) == 50
    assert len(picked([draw() for _ in range(8)], set(), 50, seed=0)) == 8


def test_a_much_worse_challenger_is_found_with_fifty_labels_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(0)

    def found(challenger: float) -> int:
        draws = (evidence(labels_of([*(rng.random(25) < 0.95)], [*(rng.random(25) < challenger)])) for _ in range(200))
        return sum(each.is_enough for each in draws)

    assert found(0.95) <= 10
    assert found(0.3) >= 190


def test_evidence_counts_pairs_in_the_order_of_labels_and_leaves_the_rest_alone() -> None:
    found = evidence(labels_of([True, True, False, True], [False, True]))
    assert (found.pairs, found.discordant) == (2, 1)
    assert found.right == {"champion": 0.75, "challenger": 0.5}
    assert evidence([]).capital == 1.0


@pytest.fixture
def served(rollout: Path, write: Write, draw: Draw) -> Path:
    """A roll-out with forty pairs whose texts are kept."""
    requests = [each for number in range(1, 41) for each in both(draw, number)]
    write(requests)
    with (rollout / "texts.jsonl").open("w", encoding="utf-8") as file:
        for each in requests:
            prompt = json.dumps([{"role": "user", "content": f"question {each.number}"}])
            text = KeptText(
                number=each.number, time=each.time, variant=each.variant, shadow=each.shadow, prompt=prompt, answer=f"of {each.variant}"
            )  # fmt: skip
            file.write(line(text) + "\n")
    return rollout


def config(rollout: Path, **more: object) -> RolloutConfig:
    return RolloutConfig(output_dir=str(rollout), who="Sato", **more)  # type: ignore[arg-type]


def test_a_person_is_asked_blindly_and_a_challenger_that_is_wrong_goes_back(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def person(question: str) -> str:
        return "y" if "of champion" in capsys.readouterr().out else "n"

    assert labelling.label(config(served), person) == 1
    assert "HARD ALARM" in capsys.readouterr().out
    kept = labelling.read(RolloutFolder(served))
    assert len(kept) == 50
    assert {each.who for each in kept} == {"Sato"}
    state, events = rollout_state.read(RolloutFolder(served))
    assert [event["event"] for event in events[-2:]] == ["labels", "alarm"]
    assert (state.stage, events[-1]["indicator"], events[-1]["hard"]) == ("back", "labels", True)
    assert labelling.since(events) == events[-1]["time"]  # labels of before count no more


def test_who_is_asked_sees_prompt_and_answer_and_not_whose_it_is(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []

    def person(question: str) -> str:
        shown.append(capsys.readouterr().out.replace("of champion", "").replace("of challenger", ""))
        return "s"

    assert labelling.label(config(served, answers=6), person) == 0
    assert len(shown) == 6
    assert all("question" in each and "cha" not in each for each in shown)
    assert labelling.read(RolloutFolder(served)) == []


def test_what_was_said_before_somebody_quits_or_interrupts_is_kept(served: Path) -> None:
    words = iter(["y", "perhaps", "n", "q"])
    labelling.label(config(served), lambda question: next(words))
    folder = RolloutFolder(served)
    assert [each.right for each in labelling.read(folder)] == [True, False]

    def interrupted(question: str) -> str:
        if len(labelling.read(folder)) >= 3:
            raise KeyboardInterrupt
        return "y"

    with pytest.raises(KeyboardInterrupt):
        labelling.label(config(served), interrupted)
    assert len(labelling.read(folder)) == 3
    assert read(served / "audit.jsonl")[0][-1]["event"] == "labels"


def test_without_texts_a_file_is_to_be_filled_in_elsewhere_and_comes_back(
    rollout: Path, write: Write, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    write([each for number in range(1, 41) for each in both(draw, number)])
    assert labelling.label(config(rollout)) == 0
    assert "keeps no texts" in capsys.readouterr().out
    rows = [json.loads(each) for each in (rollout / "to_label.jsonl").read_text().splitlines()]
    assert len(rows) == 50
    judged = rollout / "judged.jsonl"
    judged.write_text("".join(json.dumps({**row, "right": row["variant"] == "champion"}) + "\n" for row in rows[:10]))
    assert labelling.label(config(rollout, labels=str(judged))) == 0
    assert len(labelling.read(RolloutFolder(rollout))) == 10
    assert labelling.label(config(rollout, labels=str(judged))) == 0  # none counts twice
    assert len(labelling.read(RolloutFolder(rollout))) == 10
    judged.write_text("".join(json.dumps({**row, "right": row["variant"] == "champion"}) + "\n" for row in rows))
    assert labelling.label(config(rollout, labels=str(judged))) == 1


@pytest.mark.parametrize(
    "row", [{"number": 99, "variant": "champion", "right": True}, {"number": 1, "variant": "champion", "right": "yes"}, {}]
)  # fmt: skip
def test_a_line_that_is_no_label_is_refused_with_its_place(
    row: dict[str, object], rollout: Path, write: Write, draw: Draw
) -> None:
    write(both(draw, 1))
    judged = rollout / "judged.jsonl"
    judged.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"judged.jsonl line 1 is no label"):
        labelling.label(config(rollout, labels=str(judged)))


def test_a_roll_out_without_answers_has_nothing_to_label(rollout: Path) -> None:
    with pytest.raises(ValueError, match="no answer left to label"):
        labelling.label(config(rollout))
