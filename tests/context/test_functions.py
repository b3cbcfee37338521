"""Every way in which a product takes a weight: its contexts are exactly what met the weight, or it is said that they are not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cegm import CEGM
from witness import witnessed


class Holds(nn.Module):
    """A weight, and what is done with it."""

    def __init__(self, weight, call):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.call = call

    def forward(self, x):
        return self.call(self.weight, x)


def watched(weight, call, x, **options):
    module = Holds(weight, call)
    witness = witnessed(module, **options)
    module(x).double().square().sum().backward()
    return witness


def rows(*shape):
    return torch.randn(*(shape or (2, 5, 8)))


MATRICES = {  # (6, 8), fed with (2, 5, 8)
    "a linear": lambda w, x: F.linear(x, w),
    "a transpose": lambda w, x: x @ w.t(),
    "an expanded one": lambda w, x: torch.bmm(x, w.T[None].expand(2, -1, -1)),
    "addmm": lambda w, x: torch.addmm(torch.ones(6), x[0], w.T),
    "baddbmm": lambda w, x: torch.baddbmm(torch.ones(1, 1, 6), x, w.T.expand(2, 8, 6)),
    "inner": lambda w, x: torch.inner(x, w),
    "from the left": lambda w, x: w @ x.mT,
    "mm from the left": lambda w, x: torch.mm(w, x[0].T),
    "mv": lambda w, x: torch.mv(w, x[0, 0]),
    "one vector": lambda w, x: F.linear(x[0, 0], w),
    "one vector from the left": lambda w, x: x[0, 0] @ w.T,
    "no tokens": lambda w, x: F.linear(x[:0], w).sum() + F.linear(x, w),
    "called twice": lambda w, x: F.linear(x, w) + F.linear(x * x, w),
    "halves": lambda w, x: torch.cat([F.linear(x, w[:4]), F.linear(x.flip(0), w[4:])], -1),
    "every other row": lambda w, x: torch.cat([F.linear(x, w[::2]), F.linear(x * 2, w[1::2])], -1),
    "one row": lambda w, x: F.linear(x, w[2][None]),
    "groups of rows": lambda w, x: torch.bmm(x, w.view(2, 3, 8).mT),
    "reshaped and back": lambda w, x: F.linear(x, w.reshape(-1).view(6, 8)),
    "a cast": lambda w, x: F.linear(x.double(), w.double()),
    "a part of a cast": lambda w, x: x.double() @ w.double()[1:3].T,
    "a cast of a part": lambda w, x: F.linear(x.double(), w[2:5].to(torch.float64)),
    "a clone": lambda w, x: F.linear(x, w.clone()),
    "without gradients, and with": lambda w, x: F.linear(x, w.detach()) + F.linear(x, w),
    "a pointwise convolution": lambda w, x: F.conv1d(x.mT, w[:, :, None]),
    "einsum": lambda w, x: torch.einsum("bsd,od->bso", x, w),
    "einsum with dots": lambda w, x: torch.einsum("...d, od -> o...", x, w),
    "einsum by heads": lambda w, x: torch.einsum("bsd,hkd->bhsk", x, w.view(2, 3, 8)),
    "einsum over heads": lambda w, x: torch.einsum("bshk,ohk->bso", x.unflatten(-1, (2, 4)), w.view(6, 2, 4)),
}


@pytest.mark.parametrize("way", MATRICES)
def test_what_meets_a_matrix_is_seen(way):
    witness = watched(rows(6, 8), MATRICES[way], rows())
    assert witness.seen
    assert not witness.lost
    assert witness.agrees()


@pytest.mark.parametrize("weight", [rows(8, 6), rows(6, 8).T])
def test_a_matrix_is_seen_however_it_lies_in_memory(weight):
    assert watched(weight, lambda w, x: x @ w, rows(), transposed=True).agrees(transposed=True)
    assert watched(weight.T, lambda w, x: F.linear(x, w), rows()).agrees()


def test_autocast_and_low_precision_are_seen():
    for call in (
        lambda w, x: torch.autocast("cpu", torch.bfloat16)(F.linear)(x, w),
        lambda w, x: F.linear(x.bfloat16(), w.bfloat16()),
    ):
        assert watched(rows(6, 8), call, rows()).agrees(tolerance=0.1)


UNTOLD = {
    "some columns": lambda w, x: F.linear(x[..., :4], w[:, :4]) + F.linear(x[..., 4:], w[:, 4:]),
    "rows cut in two": lambda w, x: F.linear(x[..., :4], w.view(12, 4)),
    "rows joined": lambda w, x: F.linear(torch.cat([x, x], -1), w.view(3, 16)),
    "rows that overlap": lambda w, x: F.linear(x, w.as_strided((5, 8), (8, 1), 4)),
    "rows in another order": lambda w, x: F.linear(x, w.flip(0)),
    "chosen rows": lambda w, x: F.linear(x, w[torch.tensor([0, 3, 1])]),
    "a row": lambda w, x: x @ w[2],
    "a mask": lambda w, x: F.linear(x, w * (w > 0)),
    "a mask beside it": lambda w, x: F.linear(x, w) + F.linear(x, w * (w > 0)),
    "normalised": lambda w, x: F.linear(x, w / w.norm(dim=1, keepdim=True)),
    "normalised by a function": lambda w, x: F.linear(x, F.normalize(w)),
    "stacked on itself": lambda w, x: F.linear(x, torch.cat([w, w])),
    "both ways": lambda w, x: F.linear(x, w) @ w,
    "itself": lambda w, x: x @ (w.T @ w),
    "scaled": lambda w, x: torch.addmm(torch.zeros(6), x[0], w.T, alpha=2.0),
    "complex": lambda w, x: F.linear(torch.view_as_complex(x.unflatten(-1, (4, 2))), torch.view_as_complex(w.view(6, 4, 2))).abs(),
    "tensordot": lambda w, x: torch.tensordot(x, w, ([2], [1])),
    "einsum of three": lambda w, x: torch.einsum("od,bsd,bs->bos", w, x, x[..., 0]),
    "einsum that sums tokens": lambda w, x: torch.einsum("bsd,od->bo", x, w),
    "a convolution with it": lambda w, x: F.conv_transpose1d(x.mT, w.mT[:, :, None]),
}  # fmt: skip


@pytest.mark.parametrize("way", UNTOLD)
def test_what_cannot_be_told_is_said_to_be_lost(way):
    assert watched(rows(6, 8), UNTOLD[way], rows()).lost


def right(weight, transposed):
    return weight if transposed else weight.mT


STACKS = {  # four matrices, fed with (4, 5, 8); the right factor is (4, 8, 6)
    "one by one": lambda w, r, x: torch.cat([each @ r(w[e]) for e, each in enumerate(x)]),
    "a linear each": lambda w, r, x: torch.cat([F.linear(each, r(w[e]).T) for e, each in enumerate(x[:3])]),
    "numbers in tensors": lambda w, r, x: torch.cat([each @ r(w[torch.tensor(e)]) for e, each in enumerate(x)]),
    "all together": lambda w, r, x: torch.bmm(x, r(w)),
    "slices of one": lambda w, r, x: torch.cat([torch.bmm(x[e : e + 1], r(w[e : e + 1])) for e in range(4)]),
    "slices of two": lambda w, r, x: torch.bmm(x[1:3], r(w[1:3])),
    "every other": lambda w, r, x: torch.bmm(x[::2], r(w[::2])),
    "unbound": lambda w, r, x: sum(each @ r(one) for each, one in zip(x, w.unbind(), strict=True)),
    "all with the same": lambda w, r, x: x[:2, None] @ r(w),
    "behind a batch": lambda w, r, x: x.expand(3, 4, 5, 8) @ r(w),
    "one vector for all": lambda w, r, x: x[0, 0] @ r(w),
    "from the left": lambda w, r, x: r(w).mT @ x.mT,
    "one vector from the left": lambda w, r, x: r(w).mT @ x[0, 0],
    "chosen for each token": lambda w, r, x: torch.bmm(x.flatten(0, 1)[:, None], r(w[torch.tensor([3, 1, 0, 0] * 5)])),
    "chosen, from the left": lambda w, r, x: torch.bmm(r(w[[3, 1, 0, 0] * 5]).mT, x.flatten(0, 1)[..., None]),
    "chosen by a table": lambda w, r, x: x.view(10, 2, 1, 8) @ r(w[torch.arange(20).view(10, 2) % 3]),
    "chosen by a function": lambda w, r, x: torch.bmm(x, r(w.index_select(0, torch.tensor([1, 1, 2, 0])))),
    "chosen by a mask": lambda w, r, x: torch.bmm(x[:2], r(w[torch.tensor([True, False, True, False])])),
    "a part of a cast": lambda w, r, x: sum(each.double() @ r(one) for each, one in zip(x, w.double(), strict=True)),
    "chosen from a cast": lambda w, r, x: torch.bmm(x.double(), r(w.double()[[3, 3, 0, 1]])),
    "a cast of the chosen": lambda w, r, x: torch.bmm(x.double(), r(w[[3, 3, 0, 1]].double())),
    "halves": lambda w, r, x: torch.cat([torch.bmm(x, r(w)[..., :2]), torch.bmm(x, r(w)[..., 2:])], -1),
    "einsum": lambda w, r, x: torch.einsum("ebd,edh->beh", x, r(w)),
    "einsum for all": lambda w, r, x: torch.einsum("bsd,edh->besh", x, r(w)),
    "einsum of a vector each": lambda w, r, x: torch.einsum("ed,edh->eh", x[:, 0], r(w)),
    "einsum that adds them": lambda w, r, x: torch.einsum("bed,edh->bh", x.transpose(0, 1), r(w)),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("way", STACKS)
def test_each_matrix_of_a_stack_sees_its_own_tokens(way, transposed):
    weight = rows(4, 8, 6) if transposed else rows(4, 6, 8)
    call = STACKS[way]
    witness = watched(
        weight, lambda w, x: call(w, lambda m: right(m, transposed), x), rows(4, 5, 8), transposed=transposed
    )
    assert witness.seen
    assert not witness.lost
    assert witness.agrees(transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("ends", [[2, 2, 9, 15], [5, 10, 15, 20], [0, 0, 0, 20]])
def test_sorted_tokens_are_seen_by_their_matrix(ends, transposed):
    weight, ends = rows(4, 16, 24) if transposed else rows(4, 24, 16), torch.tensor(ends, dtype=torch.int32)
    for cast in (lambda w: w, lambda w: w.double().float()):
        witness = watched(
            weight,
            lambda w, x, cast=cast: F.grouped_mm(x, right(cast(w), transposed), offs=ends)[: ends[-1]],
            rows(20, 16),
            transposed=transposed,
        )
        assert witness.agrees(transposed, tolerance=1e-4)


UNTOLD_STACKS = {
    "some columns": lambda w, x: torch.bmm(x[..., :4], w.mT[:, :4]),
    "rows of several": lambda w, x: F.linear(x, w.flatten(0, 1)),
    "rows across two": lambda w, x: F.linear(x, w.flatten(0, 1)[3:8]),
    "their mean": lambda w, x: F.linear(x, w.mean(0)),
    "merged": lambda w, x: F.linear(x, torch.einsum("e,eij->ij", torch.rand(4), w)),
    "weighed in one einsum": lambda w, x: torch.einsum("ebd,ebf,ehd->bh", x, x[..., :1], w),
    "added up": lambda w, x: torch.addbmm(torch.zeros(1, 6), x, w.mT),
}


@pytest.mark.parametrize("way", UNTOLD_STACKS)
def test_what_cannot_be_told_of_a_stack_is_said_to_be_lost(way):
    assert watched(rows(4, 6, 8), UNTOLD_STACKS[way], rows(4, 5, 8)).lost


@pytest.mark.parametrize("shape", [(8, 8), (6, 8), (4, 8, 8), (4, 6, 8)])
def test_a_weight_stored_the_other_way_round_is_seen_by_who_wants_to_turn(shape):
    x = rows(4, 5, shape[-2])
    left = watched(rows(*shape), lambda w, x: x @ w, x)
    assert left.lost
    assert not left.seen
    turned = watched(rows(*shape), lambda w, x: x @ w, x, turns=True)
    assert turned.turned
    assert turned.agrees(transposed=True)


@pytest.mark.parametrize("container", [nn.ParameterDict, nn.ParameterList])
def test_a_weight_in_a_container_is_seen_from_the_module_around_it(container):
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.held = container({"0": rows(4, 6, 8)} if container is nn.ParameterDict else [rows(4, 6, 8)])

        def forward(self, x):
            return torch.bmm(x, self.held["0" if container is nn.ParameterDict else 0].mT)

    module = Mixture()
    witness = witnessed(module, "held.0")
    module(rows(4, 5, 8)).square().sum().backward()
    assert witness.agrees()


# ---------------------------------------------------------------------- convolutions

KERNELS = {
    "slices": (nn.Conv2d(3, 8, 3), (2, 3, 7, 7), lambda w, x: torch.cat([F.conv2d(x, w[:4]), F.conv2d(x, w[4:])], 1)),
    "of one image": (nn.Conv2d(3, 8, 3), (3, 7, 7), lambda w, x: torch.cat([F.conv2d(x, w[2:]), F.conv2d(x, w[:2])])),
    "a cast": (nn.Conv2d(3, 8, 3), (2, 3, 7, 7), lambda w, x: F.conv2d(x.double(), w.double())),
    "same": (nn.Conv1d(3, 8, 4), (2, 3, 9), lambda w, x: F.conv1d(x, w, padding="same")),
    "groups": (nn.Conv2d(3, 8, 3), (2, 6, 7, 7), lambda w, x: F.conv2d(x, w, None, 2, 1, groups=2)),
    "groups of a signal": (nn.Conv1d(3, 8, 3), (6, 9), lambda w, x: F.conv1d(x, w, None, 2, 1, 1, 2)),
    "flat": (nn.Conv1d(4, 6, 3), (5, 12), lambda w, x: F.linear(x, w.flatten(1))),
}


def convolved(module, shape, call):
    module.zero_grad()
    module.forward = lambda x: call(module.weight, x)
    witness = witnessed(module)
    module(rows(*shape)).double().square().sum().backward()
    return witness


@pytest.mark.parametrize("way", KERNELS)
def test_what_meets_a_kernel_is_seen(way):
    assert convolved(*KERNELS[way]).agrees()


UNTOLD_KERNELS = {
    "some channels": lambda w, x: F.conv2d(x[:, :1], w[:, :1]),
    "slices of groups": lambda w, x: F.conv2d(torch.cat([x, x], 1), w[:4], groups=2),
    "mirrored": lambda w, x: F.conv2d(x, w.flip(-1)),
    "turned": lambda w, x: F.conv2d(x, w.mT),
    "transposed": lambda w, x: F.conv_transpose2d(x[:, :1].expand(-1, 8, -1, -1), w),
}


@pytest.mark.parametrize("way", UNTOLD_KERNELS)
def test_what_cannot_be_told_of_a_kernel_is_said_to_be_lost(way):
    assert convolved(nn.Conv2d(3, 8, 3), (2, 3, 7, 7), UNTOLD_KERNELS[way]).lost


# ---------------------------------------------------------------------- with an optimizer

CALLS = {**MATRICES, **UNTOLD}


@pytest.mark.filterwarnings("ignore:.*has a gradient but:UserWarning")
@pytest.mark.parametrize("hierarchy", ["layer", "model"])
@pytest.mark.parametrize("way", CALLS)
def test_an_optimizer_steps_whatever_a_layer_does_with_its_weight(way, hierarchy):
    class Own(nn.Linear):
        def forward(self, x):
            return CALLS[way](self.weight, x)

    model = nn.Sequential(nn.Linear(8, 8), Own(8, 6))
    optimizer = CEGM(model, refresh_every=1, power=-0.5, hierarchy=hierarchy)
    for _ in range(2):
        model(rows()).double().square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert ("context_map" in optimizer.state[model[1].weight]) == (way in MATRICES)
    assert "context_map" in optimizer.state[model[0].weight]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_layer_that_recomputes_its_own_product_says_so_and_trains(reentrant):
    class Own(nn.Linear):
        def forward(self, x):
            return checkpoint(lambda x: F.linear(x, self.weight, self.bias), x, use_reentrant=reentrant)

    model = nn.Sequential(nn.Linear(8, 8), Own(8, 8))
    optimizer = CEGM(model, refresh_every=1)
    model(rows()).square().sum().backward()
    with pytest.warns(UserWarning, match="called" if reentrant else "recomputes"):
        optimizer.step()
    assert "demand_map" in optimizer.state[model[0].weight]


def test_a_part_that_is_lost_takes_nothing_into_the_next_step():
    class Own(nn.Linear):
        mask = True

        def forward(self, x):
            return F.linear(x, self.weight) + (F.linear(x, self.weight * 2) if self.mask else 0)

    model = nn.Sequential(Own(8, 8))
    optimizer = CEGM(model, refresh_every=1)
    for mask in (True, False):
        model[0].mask = mask
        model(rows()).square().sum().backward()
        if mask:
            with pytest.warns(UserWarning, match="cannot be told"):
                optimizer.step()
        else:
            optimizer.step()
        assert ("demand_map" in optimizer.state[model[0].weight]) != mask
        optimizer.zero_grad()


def test_offloading_inside_a_layer_and_a_default_device_around_it_change_nothing():
    class Own(nn.Linear):
        def forward(self, x):
            with torch.autograd.graph.save_on_cpu():
                return F.linear(x, self.weight)

    module, x = Own(8, 6), rows()
    witness = witnessed(module)
    with torch.device("meta"):
        y = module(x)
    y.square().sum().backward()
    assert witness.agrees()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_function_inside_a_layer_is_seen_as_it_is_or_not_at_all(backend):
    product = torch.compile(lambda x, w: F.linear(x, w).relu(), backend=backend, fullgraph=True)
    witness = watched(rows(6, 8), lambda w, x: product(x, w), rows())
    assert not witness.seen or witness.agrees()
