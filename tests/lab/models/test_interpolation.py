"""Interpolation between two models: the straight line, its ends, and what is no line at all."""

import pytest
import torch

from cegm.lab.models.interpolation import interpolated


def test_it_is_the_straight_line_and_each_end_is_one_of_the_models():
    before = {"w": torch.randn(3, 4), "b": torch.randn(4).bfloat16(), "count": torch.tensor(3)}
    after = {"w": torch.randn(3, 4), "b": torch.randn(4).bfloat16(), "count": torch.tensor(5)}
    found = interpolated(before, after, 0.25)
    torch.testing.assert_close(found["w"].double(), 0.75 * before["w"].double() + 0.25 * after["w"].double())
    assert found["b"].dtype == torch.bfloat16
    assert int(found["count"]) == 5
    for share, end in ((0.0, before), (1.0, after)):
        mixed = interpolated(before, after, share)
        assert all(torch.equal(mixed[name], end[name]) for name in ("w", "b"))


def test_the_loss_between_two_ends_of_a_convex_one_lies_below_their_chord():
    x, y = torch.randn(50, 3), torch.randn(50)
    before, after = {"w": torch.randn(3)}, {"w": torch.randn(3)}
    losses = [float((x @ interpolated(before, after, s)["w"] - y).square().mean()) for s in (0.0, 0.5, 1.0)]
    assert losses[1] <= (losses[0] + losses[2]) / 2


@pytest.mark.parametrize(("after", "share", "said"), [
    ({"w": torch.zeros(2)}, 1.5, r"share=1.5 is outside \[0, 1\]"),
    ({"w": torch.zeros(3)}, 0.5, r"w is \(2,\) before and \(3,\) after"),
    ({"w": torch.zeros(2), "v": torch.zeros(1)}, 0.5, "v is missing before"),
])  # fmt: skip
def test_what_is_no_line_is_refused(after, share, said):
    with pytest.raises(ValueError, match=said):
        interpolated({"w": torch.zeros(2)}, after, share)
