"""A method looks the same wherever it is drawn."""

from __future__ import annotations

import itertools

from cegm.lab.baselines import METHODS
from cegm.lab.report import style


def test_a_method_has_the_same_look_beside_whomever_it_stands() -> None:
    alone = {method: style.looks([method])[0] for method in METHODS}
    for methods in itertools.permutations(METHODS, 3):
        assert style.looks(list(methods)) == [alone[method] for method in methods]


def test_no_two_methods_share_colour_or_shape_or_dashes() -> None:
    for place in range(3):
        assert len({str(look[place]) for look in style.looks(list(METHODS))}) == len(METHODS)


def test_names_that_are_no_method_are_told_apart_as_far_as_looks_go() -> None:
    looks = style.looks(["cegm", *map(str, range(20))])
    assert len(looks) == 21
    assert len({look[0] for look in looks[1:7]}) == 6
