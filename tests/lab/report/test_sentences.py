"""The first screen says what the verdict says, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from cegm.lab.report.judged import Judged
from cegm.lab.report.sentences import headline, sentences
from verdicts import axis, folder_of, judged_on, with_few_seeds

NONE = {"muon": "no evidence", "adamw": "no evidence"}


def told(verdict: dict[str, Any], axes: dict[str, Any] | None = None) -> dict[str, str]:
    """All sentences of a kind as one text."""
    found: dict[str, str] = {}
    for sentence in sentences(folder_of(verdict, axes)):
        found[sentence.kind] = " ".join(
            [found[sentence.kind], sentence.text] if sentence.kind in found else [sentence.text]
        )
    return found


def test_loss_and_time_are_one_sentence_with_sizes_and_intervals() -> None:
    text = told(judged_on([]))["loss"]
    assert text.startswith(
        "In a screening with 2 seeds, CEGM ends with a lower validation loss after equal steps than AdamW "
        "(\N{MINUS SIGN}0.1000 bits per byte [\N{MINUS SIGN}0.1500 to \N{MINUS SIGN}0.0500]); there is no evidence that CEGM differs in "
        "validation loss after equal steps from Muon (\N{MINUS SIGN}0.0200 bits per byte [\N{MINUS SIGN}0.0700 to +0.0300]; "
        "one below 0.1000 would often go unseen); "
    )
    assert "validation loss in equal training time was not measured against Muon or AdamW" in text
    assert text.count(". ") == 0


def test_a_worse_loss_is_said() -> None:
    text = told(judged_on([], {"muon": "worse", "adamw": "worse"}, screening=False))["loss"]
    assert text.startswith("CEGM ends with a higher validation loss after equal steps than Muon (+0.1000")
    assert "screening" not in text


def test_equal_losses_need_their_own_test() -> None:
    tests = [{"pair": ["cegm", "muon"], "margin": 0.01, "p": 0.03, "no_loss": True}]
    assert (
        "Muon (\N{MINUS SIGN}0.0200 bits per byte [\N{MINUS SIGN}0.0700 to +0.0300]; shown to be equal within 0.01 bits per byte)"
        in (told(judged_on([], no_loss=tests))["loss"])
    )
    tests[0]["no_loss"] = False
    assert "shown to be equal" not in told(judged_on([], no_loss=tests))["loss"]
    assert "shown to be equal" not in told(judged_on([], {"muon": "better", "adamw": "better"}, no_loss=tests))["loss"]


def test_axes_are_told_by_their_words() -> None:
    axes = [
        axis(
            "ambiguity",
            {"muon": "no evidence", "adamw": "better"},
            title="Ambiguity",
            effects={"muon": 0.0, "adamw": 0.031},
        ),
        axis("noise", {"muon": "better", "adamw": "better"}, title="Noise", effects={"muon": 0.01, "adamw": 0.02}),
        axis(
            "drift",
            {"muon": "worse", "adamw": "no evidence"},
            title="Drift, mean",
            unit="similarity",
            effects={"muon": -0.5, "adamw": 0},
        ),
    ]
    found = told(judged_on(axes))
    assert found["better"] == (
        "In this screening, CEGM is better than AdamW at ambiguity (+3.1 percentage points), and than Muon and AdamW at noise "
        "(+1.0 and +2.0 percentage points)."
    )
    assert found["worse"] == "In this screening, CEGM is worse than Muon at drift (\N{MINUS SIGN}0.5000 similarity)."
    assert found["open"].startswith(
        "In this screening, there is no evidence that CEGM differs from Muon at ambiguity, nor from AdamW at drift."
    )


def test_a_claim_does_not_call_itself_a_screening() -> None:
    found = told(judged_on([axis("noise", NONE)], screening=False))
    assert found["better"] == "On no axis is CEGM better than Muon or AdamW."
    assert found["worse"] == "On no axis is CEGM worse than Muon or AdamW."
    assert found["open"].startswith("There is no evidence that CEGM differs from Muon or AdamW at noise.")
    assert "screening" not in " ".join(found.values())


def reach(loss: str, retention: str, domains: str) -> str:
    axes = [
        axis("retention", {"muon": retention, "adamw": "better"}, title="Context retention, mean over lengths"),
        axis(
            "domains",
            {"muon": domains, "adamw": "better"},
            title="Unseen domains",
            unit="bits per byte",
            better="lower",
        ),
    ]
    return told(judged_on(axes, {"muon": loss, "adamw": "better"}))["open"]


def test_whether_context_reaches_further_than_the_loss_is_asked_of_muon() -> None:
    text = reach("better", "no evidence", "worse")
    assert (
        "Does context help at context retention and unseen domains more than at plain loss? Against Muon, which has neither "
        "contexts nor row moments, the word is "
        "\N{LEFT DOUBLE QUOTATION MARK}better\N{RIGHT DOUBLE QUOTATION MARK} at plain loss and "
        "\N{LEFT DOUBLE QUOTATION MARK}no evidence\N{RIGHT DOUBLE QUOTATION MARK} at context retention, "
        "\N{LEFT DOUBLE QUOTATION MARK}worse\N{RIGHT DOUBLE QUOTATION MARK} at unseen domains: nothing here says so."
    ) in text
    assert "these words cannot tell" in reach("better", "better", "no evidence")
    assert "the gap between the two was not tested" in reach("no evidence", "better", "no evidence")


def test_normuon_is_the_better_control_where_it_ran() -> None:
    rivals = {"muon": "better", "normuon": "no evidence", "adamw": "better"}
    text = told(judged_on([axis("noise", rivals, title="Noise")], rivals))["open"]
    assert (
        "Against NorMuon, which is CEGM without contexts, the word is \N{LEFT DOUBLE QUOTATION MARK}no evidence" in text
    )
    assert "Against Muon" not in text


def test_without_such_a_control_the_question_is_not_asked() -> None:
    found = told(judged_on([axis("retention", {"adamw": "better"})], {"adamw": "better"}))
    assert "Does context help" not in " ".join(found.values())


def test_without_axes_nothing_is_said_of_them() -> None:
    found = told(judged_on([]))
    assert found["open"] == "No axis of the paper was measured."
    assert not {"better", "worse"} & found.keys()


def test_an_axis_that_could_not_be_measured_is_named() -> None:
    verdict = judged_on([axis("noise", NONE)])
    text = told(verdict, {"steps": {"reason": "no public set"}, "noise": {"reason": ""}})["open"]
    assert text.endswith("Not measured, for reasons given here or below: steps.")
    text = told(verdict, {"search": {"reason": "no folder"}, "steps": {"reason": "no public set"}})["open"]
    assert text.endswith(": search (no folder) and steps."), "pilots stand in no table of the paper"


def test_a_method_alone_has_nothing_to_be_compared_with() -> None:
    verdict = judged_on([])
    verdict |= {"methods": ["cegm"], "measures": [{**m, "pairs": []} for m in verdict["measures"]]}
    assert headline(folder_of(verdict)).startswith("CEGM cannot be judged")
    assert set(told(verdict)) == {"warning"}


MINUS = "\N{MINUS SIGN}"


def test_too_few_seeds_for_an_interval_are_told_one_by_one() -> None:
    text = told(with_few_seeds(judged_on([]), (0.01, -0.01, 0.0)))["loss"]
    assert text.startswith(
        f"In a screening with 3 seeds, CEGM ends with a lower validation loss after equal steps than AdamW ({MINUS}0.1000 bits per "
        f"byte, by seed {MINUS}0.0900, {MINUS}0.1100, {MINUS}0.1000); there is no evidence that CEGM differs in validation loss after "
        f"equal steps from Muon ({MINUS}0.0200 bits per byte, by seed {MINUS}0.0100, {MINUS}0.0300, {MINUS}0.0200); "
    )
    assert "[" not in text
    assert "go unseen" not in text, "nor is there anything that they would detect"
    single = told(with_few_seeds(judged_on([]), (0.0,)))["loss"]
    assert f"AdamW ({MINUS}0.1000 bits per byte, one seed)" in single


def cost(kind: str, spread: dict[str, Any]) -> dict[str, Any]:
    pairs = [{"pair": ["cegm", other], "n": 2, "effect": 2.0, "p": 0.5, "word": "worse", **spread} for other in NONE]
    return {"name": kind, "effect": "ratio", "unit": "seconds", "family": "exploratory", "methods": {}, "pairs": pairs}


def test_costs_have_their_interval_or_their_seeds() -> None:
    verdict = judged_on([])
    verdict["measures"] += [
        cost("step_time", {"interval": None, "points": [1.0, 4.0]}),
        cost("memory", {"interval": [1.5, 2.5], "points": [2.0] * 5}),
        cost("optimizer_state", {"interval": None, "points": [2.0, 2.0], "p": None}),
    ]
    times = "\N{MULTIPLICATION SIGN}"
    assert (
        f"Compared with AdamW, CEGM takes 2.000 {times} the peak memory "
        f"(95 % interval 1.500 to 2.500), 2.000 {times} the optimizer state."
    ) in told(verdict)["cost"]
    assert told(verdict)["cost"].endswith("--overhead times steps in turns.")
    assert f"{times} the time per step" not in told(verdict)["cost"], "runs that share a machine give no ratio of times"


@pytest.mark.parametrize("paired", [7, 8])
def test_each_sentence_stands_by_the_seeds_of_its_own_pairs(paired: int) -> None:
    """Here only the runs at equal seconds lost a seed: the headline is a claim, and the sentence that has both is none."""
    own = judged_on([axis("noise", NONE)], screening=False)
    equal, _ = axis("equal_seconds", NONE, unit="bits per byte", better="lower")
    equal["family"] = "exploratory"
    own["measures"].append(equal)
    for measure in own["measures"]:
        count = paired if measure is equal else 8
        for pair in measure["pairs"]:
            pair |= {"n": count, "screening": count < 8}
    found = told(own)
    assert not headline(folder_of(own)).startswith("In a screening")
    assert found["loss"].startswith("In a screening with 7 to 8 seeds, ") is (paired == 7)
    assert found["better"] == "On no axis is CEGM better than Muon or AdamW."


def test_a_screening_of_the_axes_is_told_where_it_is_one() -> None:
    verdict = judged_on(
        [axis("noise", {"muon": "better", "adamw": "no evidence"}), axis("drift", NONE)], screening=False
    )
    for pair in next(measure for measure in verdict["measures"] if measure["name"] == "noise")["pairs"]:
        pair["screening"] = pair["pair"][1] == "muon"
    found = told(verdict)
    assert found["better"].startswith("In this screening, CEGM is better than Muon at noise")
    assert found["worse"].startswith("In this screening, on no axis")
    assert found["open"].startswith("There is no evidence that CEGM differs from AdamW at noise")


def test_a_method_that_failed_on_every_seed_is_named_first_of_all() -> None:
    verdict = judged_on([axis("noise", NONE)], failed_methods=["muon"])
    for measure in verdict["measures"]:
        measure["pairs"][0] |= {"n": 0, "effect": None}
    text = headline(folder_of(verdict))
    assert text == (
        "In a screening with 2 seeds, CEGM ends with a lower validation loss than AdamW; Muon failed on every seed."
    )
    assert told(verdict)["worse"] == "In this screening, on no axis is CEGM worse than AdamW.", "nobody beat Muon"
    verdict["failed_methods"] = ["cegm"]
    assert headline(folder_of(verdict)) == "CEGM cannot be judged: it failed on every seed."


def test_the_baseline_is_the_one_of_the_order_whatever_the_verdict_lists_last() -> None:
    rivals = {"muon": "better", "normuon": "no evidence", "soap": "no evidence"}
    verdict = Judged(judged_on([axis("noise", rivals)], rivals))
    assert verdict.verdict["methods"][-1] == "soap"
    assert (verdict.subject, verdict.baseline) == ("cegm", "muon")
