"""Slow, obvious versions of the mathematics, in float64 with loops and decompositions: what the fast paths must agree with."""

import math

import torch


def block_diagonal(blocks):
    return torch.block_diag(*blocks)


def weights_of_tokens(scores, demands):
    """softmax(f) over the tokens that the loss reaches."""
    logits = []
    for d in demands:
        squared = float((d * d).sum())
        if squared == 0.0:
            logits.append(-math.inf)
        else:
            logits.append({"uniform": 0.0, "gradient": math.log(squared)}[scores])
    return torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=0)


def context_matrix(vectors, weights, heads):
    """sum_i a_i x_i x_i^T with everything outside the diagonal blocks set to zero."""
    features = vectors.shape[1]
    total = torch.zeros(features, features, dtype=torch.float64)
    for x, a in zip(vectors.double(), weights, strict=True):
        total += a * torch.outer(x, x)
    width = features // heads
    mask = torch.block_diag(*[torch.ones(width, width, dtype=torch.float64) for _ in range(heads)])
    return total * mask


def phi(aggregate, power, damping):
    """(S/s + e I)^p by eigendecomposition."""
    n = aggregate.shape[0]
    mean = aggregate.diagonal().sum() / n
    if mean == 0:
        return torch.eye(n, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(aggregate.double() / mean)
    return vectors @ torch.diag((values.clamp_min(0) + damping) ** power) @ vectors.T


def quintic_polar(matrix, eps=1e-7):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.double()
    if x.shape[0] > x.shape[1]:
        return quintic_polar(matrix.T, eps).T
    x = x / max(float(x.norm()), eps)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def normalized(mapped, kind):
    if kind == "polar":
        return quintic_polar(mapped)
    if kind == "spectral":
        return mapped / torch.linalg.svdvals(mapped)[0]
    if kind == "frobenius":
        return mapped / mapped.norm()
    return mapped


class SlowCEGM:
    """Algorithm 1, lines 7 to 12, for one weight (outputs x inputs), one step at a time."""

    def __init__(self, weight, *, lr, options):
        self.weight = weight.double().clone()
        self.lr, self.o = lr, options
        self.momentum = torch.zeros_like(self.weight)
        self.s = self.t = None
        self.phi_p = self.phi_q = None
        self.row_moment = torch.zeros(weight.shape[0], 1, dtype=torch.float64)
        self.coefficient = options["entanglement"]
        self.fast = self.slow = None
        self.steps = 0

    def step(self, gradient, contexts, demands, loss):
        o = self.o
        outputs, inputs = self.weight.shape
        gradient, contexts, demands = gradient.double(), contexts.double(), demands.double()
        self.fast = loss if self.fast is None else 0.9 * self.fast + 0.1 * loss
        self.slow = loss if self.slow is None else 0.99 * self.slow + 0.01 * loss

        self.momentum = self.coefficient * gradient + (1 - self.coefficient) * self.momentum  # line 7
        entangled = self.momentum
        if o["nesterov"]:
            entangled = self.coefficient * gradient + (1 - self.coefficient) * self.momentum

        if self.steps % o["refresh_every"] == 0:  # line 8
            keep = o["recurrence"] ** o["refresh_every"]
            a = weights_of_tokens(o["scores"], demands)
            context, demand = context_matrix(contexts, a, o["heads"]), context_matrix(demands, a, o["heads"])
            self.s = context if self.s is None else keep * self.s + (1 - keep) * context
            self.t = demand if self.t is None else keep * self.t + (1 - keep) * demand
            self.phi_p, self.phi_q = (
                phi(self.s, o["power"], o["damping"]),
                phi(self.t, o["gradient_power"], o["damping"]),
            )

        mapped = entangled  # line 9
        if o["power"]:
            mapped = mapped @ self.phi_p.T
        if o["gradient_power"]:
            mapped = self.phi_q @ mapped

        direction = normalized(mapped, o["normalize"])  # line 10
        if o["row_moment"]:
            decay = o["aux_betas"][1]
            self.row_moment = decay * self.row_moment + (1 - decay) * (direction**2).mean(dim=1, keepdim=True)
            balanced = direction / (self.row_moment.sqrt() + o["eps"])
            direction = balanced * direction.norm() / balanced.norm()

        decay = self.lr * o["weight_decay"]  # line 11
        if o["cautious"]:
            self.weight = torch.where(direction * self.weight > 0, self.weight * (1 - decay), self.weight)
        else:
            self.weight = self.weight * (1 - decay)
        scale = {
            "match_adamw": 0.2 * math.sqrt(max(outputs, inputs)),
            "spectral": math.sqrt(max(1, outputs / inputs)),
            "none": 1.0,
        }[o["layer_scale"]]
        self.weight = self.weight - self.lr * scale * direction

        if o["coefficient"] == "progress":  # line 12
            signal = max(-1.0, min(1.0, (self.slow - self.fast) / abs(self.slow)))
            low, high = o["coefficient_range"]
            self.coefficient = max(low, min(high, self.coefficient + o["coefficient_step"] * signal))
        self.steps += 1
