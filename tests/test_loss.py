"""The entanglement loss against double backpropagation and loops, its identities, its limits and its memory."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import cegm
from cegm import loss as module
from cegm.loss import EntanglementLoss
from cegm.loss_options import KERNELS, STOP_GRADIENTS

HIDDEN, VOCABULARY = 5, 11


def drawn(tokens=7, dtype=torch.float64, bias=True):
    """Hidden states (tokens, hidden), head (vocabulary, hidden), bias and labels."""
    hidden = torch.randn(tokens, HIDDEN, dtype=dtype, requires_grad=True)
    head = torch.randn(VOCABULARY, HIDDEN, dtype=dtype, requires_grad=True)
    offset = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True) if bias else None
    return hidden, head, torch.randint(VOCABULARY, (tokens,)), offset


def by_double_backpropagation(beta, kernel, stop_gradient, hidden, head, labels, bias):
    """The definition: g comes from autograd, and is differentiated once more."""
    losses = F.cross_entropy(F.linear(hidden, head, bias), labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), hidden, create_graph=True)
    context = hidden.detach() if stop_gradient == "context" else hidden
    gradient = gradient.detach() if stop_gradient == "gradient" else gradient
    if kernel == "dot":
        similarity = (context * gradient).sum(1)
    elif kernel == "cosine":
        similarity = F.cosine_similarity(context, gradient)
    else:
        apart = context / context.norm(dim=1, keepdim=True) - gradient / gradient.norm(dim=1, keepdim=True)
        similarity = torch.exp(-(apart.norm(dim=1) ** 2) / 2)
    return (losses + beta * similarity).mean()


def by_loops(beta, kernel, hidden, head, labels, bias):
    """The same number from Python's own arithmetic."""
    total = 0.0
    for h, label in zip(hidden.tolist(), labels.tolist(), strict=True):
        z = [sum(u * x for u, x in zip(row, h, strict=True)) + b for row, b in zip(head.tolist(), bias, strict=True)]
        normalizer = sum(math.exp(value) for value in z)
        p = [math.exp(value) / normalizer for value in z]
        residual = [value - (word == label) for word, value in enumerate(p)]
        g = [sum(r * row[i] for r, row in zip(residual, head.tolist(), strict=True)) for i in range(HIDDEN)]
        dot, lengths = sum(a * b for a, b in zip(h, g, strict=True)), (math.hypot(*h), math.hypot(*g))
        apart = sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(h, g, strict=True))
        similarity = {"dot": dot, "cosine": dot / math.prod(lengths), "rbf": math.exp(-apart / 2)}[kernel]
        total += -math.log(p[label]) + beta * similarity
    return total / len(labels)


def gradients(value, *tensors):
    return torch.autograd.grad(value, [tensor for tensor in tensors if tensor is not None])


@pytest.mark.parametrize("chunk", [1, 3 * VOCABULARY, module.CHUNK_LOGITS])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stop_gradient", STOP_GRADIENTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_value_and_gradients_are_those_of_double_backpropagation(kernel, stop_gradient, bias, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk)
    hidden, head, labels, offset = drawn(bias=bias and kernel != "dot")
    value = EntanglementLoss(0.7, kernel, stop_gradient)(hidden, head, labels, offset)
    wanted = by_double_backpropagation(0.7, kernel, stop_gradient, hidden, head, labels, offset)
    torch.testing.assert_close(value, wanted)
    for got, want in zip(gradients(value, hidden, head, offset), gradients(wanted, hidden, head, offset), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kernel", KERNELS)
def test_value_is_that_of_loops(kernel):
    hidden, head, labels, bias = drawn(bias=kernel != "dot")
    value = EntanglementLoss(-0.4, kernel)(hidden, head, labels, bias)
    offsets = [0.0] * VOCABULARY if bias is None else bias.tolist()
    assert value.item() == pytest.approx(by_loops(-0.4, kernel, hidden, head, labels, offsets), rel=1e-12)


@pytest.mark.parametrize("beta", [-1.0, -0.3, 0.5, 2.0])
def test_dot_is_a_confidence_penalty(beta):
    hidden, head, labels, _ = drawn()
    log_p = (hidden @ head.T).log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    wanted = (1 + beta) * F.nll_loss(log_p, labels) - beta * entropy
    value = EntanglementLoss(beta, "dot")(hidden, head, labels)
    torch.testing.assert_close(value, wanted)
    for got, want in zip(gradients(value, hidden, head), gradients(wanted, hidden, head), strict=True):
        torch.testing.assert_close(got, want)


def test_dot_with_a_bias_is_refused_because_it_has_no_minimum():
    hidden, head, labels, bias = drawn()
    with pytest.raises(ValueError, match=r"beta=0\.1 with kernel 'dot' has no minimum on a head with a bias") as error:
        EntanglementLoss(0.1, "dot")(hidden, head, labels, bias)
    assert "\n" not in str(error.value)
    assert EntanglementLoss(0.0, "dot")(hidden, head, labels, bias) > 0


def test_rbf_is_the_exponential_of_the_cosine():
    hidden, head, labels, bias = drawn(tokens=1)
    entropy = F.cross_entropy(F.linear(hidden, head, bias), labels)
    cosine, rbf = (EntanglementLoss(1.0, k)(hidden, head, labels, bias) - entropy for k in ("cosine", "rbf"))
    torch.testing.assert_close(rbf, (cosine - 1).exp())


@pytest.mark.parametrize("margin", [50.0, 500.0])
def test_dot_of_a_confidently_wrong_token_is_its_margin(margin):
    """Why beta < -1 is refused: L and E both grow with the margin, so (1 + beta) of it has no lower bound."""
    hidden, head = torch.tensor([[margin]], dtype=torch.float64), torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    assert EntanglementLoss(-1.0, "dot")(hidden, head, torch.tensor([1])).item() == pytest.approx(0, abs=1e-9)
    assert EntanglementLoss(0.0)(hidden, head, torch.tensor([1])).item() == pytest.approx(margin)


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_beta_zero_is_cross_entropy_to_the_bit_and_skips_the_kernel(dtype, monkeypatch):
    monkeypatch.setattr(module, "_gradient", None)
    for tokens in (1, 64, 1000):
        hidden, head, labels, bias = drawn(tokens, dtype)
        value = EntanglementLoss(0.0)(hidden, head, labels, bias)
        wanted = F.cross_entropy(F.linear(hidden, head, bias), labels)
        assert torch.equal(value, wanted)
        for got, want in zip(gradients(value, hidden, head, bias), gradients(wanted, hidden, head, bias), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kernel", KERNELS)
def test_padding_neither_counts_nor_leaks(kernel):
    hidden, head, labels, bias = drawn(tokens=6, bias=kernel != "dot")
    alone = EntanglementLoss(0.5, kernel)(hidden[:4], head, labels[:4], bias)
    padded = torch.cat([hidden[:2], torch.full((2, HIDDEN), math.nan, dtype=torch.float64), hidden[2:4]]).detach()
    padded = padded.view(2, 3, HIDDEN).requires_grad_()
    marked = torch.tensor([*labels[:2], -100, -100, *labels[2:4]]).view(2, 3)
    value = EntanglementLoss(0.5, kernel)(padded, head, marked, bias)
    torch.testing.assert_close(value, alone)
    got, of_head = gradients(value, padded, head)
    want, wanted_of_head = gradients(alone, hidden, head)
    torch.testing.assert_close(of_head, wanted_of_head)
    torch.testing.assert_close(got.view(6, HIDDEN)[[0, 1, 4, 5]], want[:4])
    assert not got.view(6, HIDDEN)[2:4].any()


@pytest.mark.parametrize("count", [10, torch.tensor(10)])
def test_count_is_the_divisor(count):
    hidden, head, labels, bias = drawn()
    loss = EntanglementLoss(0.5)
    torch.testing.assert_close(
        loss(hidden, head, labels, bias, count), loss(hidden, head, labels, bias) * len(labels) / 10
    )


@pytest.mark.parametrize("count", [None, 0, 9])
@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_to_predict_is_zero_with_zero_gradients(kernel, tokens, count):
    hidden, head, labels, bias = drawn(tokens, bias=kernel != "dot")
    value = EntanglementLoss(0.5, kernel)(hidden, head, torch.full_like(labels, -100), bias, count)
    assert value.item() == 0
    assert not any(gradient.any() for gradient in gradients(value, hidden, head, bias))


@pytest.mark.parametrize("stop_gradient", STOP_GRADIENTS)
@pytest.mark.parametrize(("kernel", "constant"), [("cosine", 0.0), ("rbf", math.exp(-0.5)), ("dot", 0.0)])
def test_where_context_or_gradient_is_zero_the_kernel_is_flat(kernel, constant, stop_gradient):
    """A zero hidden state, and a token so sure that its gradient is zero; `dot` is flat only in the second case."""
    sure = torch.full((1, HIDDEN), 300.0)
    head = torch.zeros(VOCABULARY, HIDDEN).index_fill(0, torch.tensor([3]), 1.0).requires_grad_()
    for hidden, flat in ((torch.zeros(1, HIDDEN), kernel != "dot"), (sure, True)):
        hidden.requires_grad_()
        value = EntanglementLoss(0.5, kernel, stop_gradient)(hidden, head, torch.tensor([3]))
        entropy = F.cross_entropy(hidden @ head.T, torch.tensor([3]))
        torch.testing.assert_close(value, entropy + 0.5 * constant)
        got, want = gradients(value, hidden, head), gradients(entropy, hidden, head)
        assert all(gradient.isfinite().all() for gradient in got)
        if flat:
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sure_token_keeps_its_direction_in_float32(kernel):
    """Here p_y rounds to 1 in float32, and p_y - 1 would be 0 or noise."""
    head = torch.randn(VOCABULARY, HIDDEN)
    hidden = 30 * F.normalize(head[3] - head.mean(0), dim=0)[None]
    labels = (hidden @ head.T).argmax(1)
    results = []
    for dtype in (torch.float32, torch.float64):
        h, u = hidden.to(dtype).requires_grad_(), head.to(dtype).requires_grad_()
        value = EntanglementLoss(1.0, kernel)(h, u, labels) - EntanglementLoss(0.0)(h, u, labels)
        results.append([value, *gradients(value, h, u)])
    assert (1 - (hidden @ head.T).softmax(1).max()).item() == 0
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_bfloat16_is_computed_in_float32(kernel, autocast):
    hidden, head, labels, bias = drawn(dtype=torch.float32, bias=kernel != "dot")
    halves = [t.detach().bfloat16().requires_grad_() for t in (hidden, head, bias) if t is not None]
    exact = [t.detach().float().requires_grad_() for t in halves]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = EntanglementLoss(0.5, kernel)(halves[0], halves[1], labels, *halves[2:])
    got = gradients(value, *halves)  # outside autocast, where the chunks are computed again
    wanted = EntanglementLoss(0.5, kernel)(exact[0], exact[1], labels, *exact[2:])
    assert value.dtype == torch.float32
    assert torch.equal(value, wanted)
    for one, other in zip(got, gradients(wanted, *exact), strict=True):
        assert torch.equal(one, other.bfloat16())


# ------------------------------------------------------------------ memory


def peak_bytes(run):
    """Most bytes allocated at a time on the CPU while `run` runs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_memory_stays_within_that_of_cross_entropy():
    """1024 tokens, 32,000 words; measured: 393 MB for plain cross-entropy, 151 MB for the loss."""
    head = (torch.randn(32000, 64) / 8).requires_grad_()
    hidden, labels = torch.randn(1024, 64, requires_grad=True), torch.randint(32000, (1024,))
    plain = peak_bytes(lambda: F.cross_entropy(hidden @ head.T, labels).backward())
    assert plain > 2 * 1024 * 32000 * 4  # it does see the logits
    for kernel in KERNELS:
        hidden.grad = head.grad = None
        assert peak_bytes(lambda kernel=kernel: EntanglementLoss(0.1, kernel)(hidden, head, labels).backward()) < plain


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "cosin"}, "kernel 'cosin' does not exist; did you mean 'cosine'?"),
        ({"stop_gradient": "both"}, "stop_gradient 'both' does not exist; use one of none, context, gradient"),
        ({"beta": math.nan}, "beta=nan must be a finite number"),
        ({"beta": -math.inf}, "beta=-inf must be a finite number"),
        ({"beta": -1.01, "kernel": "dot"}, "beta=-1.01 with kernel 'dot' has no minimum; use beta of at least -1"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        EntanglementLoss(**options)
    assert "\n" not in str(raised.value)


def test_bounded_kernels_take_any_finite_beta():
    assert EntanglementLoss(-3.0, "cosine").beta == EntanglementLoss(-3.0, "rbf").beta == -3.0


@pytest.mark.parametrize("change", [{"labels": torch.zeros(6)}, {"head_weight": torch.zeros(VOCABULARY * HIDDEN)}])
def test_shapes_that_do_not_fit(change):
    hidden, head, labels, _ = drawn()
    with pytest.raises(ValueError, match=r"hidden \(7, 5\), head_weight .* do not fit"):
        EntanglementLoss()(**{"hidden": hidden, "head_weight": head, "labels": labels, **change})


def test_it_is_exported_and_torch_waits_until_it_is_asked_for():
    assert cegm.EntanglementLoss is EntanglementLoss
    code = "import sys, cegm.lab.train.run_config\nassert 'torch' not in sys.modules\ncegm.EntanglementLoss(beta=0.2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
