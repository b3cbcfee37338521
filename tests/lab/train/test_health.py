"""Where a number that is not finite came from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cegm.lab.train.health import NonFiniteError, earliest, find_first_bad


class Small(nn.Module):
    """Embedding and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(10, 4)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 10)

    def forward(self, input_ids: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(self.embed(input_ids)))
        return output


BATCHES = [
    ({"input_ids": torch.tensor([[1, 2], [3, 4]])}, [17, 5]),
    ({"input_ids": torch.tensor([[6, 7], [1, 9]])}, [2, 8]),
]


def test_weight() -> None:
    model = Small()
    with torch.no_grad():
        model.first.bias[2] = float("nan")
    assert find_first_bad(model, BATCHES) == ("weight first.bias", [17, 5, 2, 8])


def test_output_of_the_rows_that_overflow() -> None:
    model = Small()
    with torch.no_grad():
        model.first.weight.fill_(1e30)
        model.embed.weight.zero_()
        model.embed.weight[9] = 1e30
    assert find_first_bad(model, BATCHES) == ("output of layer first", [8])


def test_gradient_nearest_to_the_loss() -> None:
    model = Small()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.embed.weight.grad[0, 0] = float("nan")  # type: ignore[index]
    model.first.weight.grad[0, 0] = float("inf")  # type: ignore[index]
    assert find_first_bad(model, BATCHES) == ("gradient of first.weight", [17, 5, 2, 8])


def test_norm_that_overflows_although_every_entry_is_finite() -> None:
    place, rows = find_first_bad(Small(), BATCHES)
    assert place.startswith("gradient norm")
    assert rows == [17, 5, 2, 8]


def test_message_is_one_line_and_names_few_rows() -> None:
    message = str(NonFiniteError("loss", 3, list(range(20))))
    assert "\n" not in message
    assert "rows 0, 1, 2, 3, 4, 5, 6, 7 ... of" in message
    assert "before the update. Check" in message
    assert "before the update after 2 skipped ones. Check" in str(NonFiniteError("loss", 3, [1], skipped=2))


def test_of_several_processes_the_place_computed_first_is_named_with_its_own_rows() -> None:
    gradient, output, weight = ("gradient of a", [1, 2]), ("output of layer b", [7]), ("weight c", [4, 5])
    assert earliest([gradient]) == gradient
    assert earliest([gradient, output]) == output
    assert earliest([output, gradient, ("output of layer d", [3])]) == ("output of layer b", [7, 3])
    assert earliest([gradient, ("gradient of a", [8, 0])]) == ("gradient of a", [1, 2, 8, 0])
    assert earliest([output, weight]) == weight
