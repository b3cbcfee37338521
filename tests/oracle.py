"""Slow, obvious versions of the mathematics, in float64 with loops and decompositions: what the fast paths must agree with."""

import math

import torch


def block_diagonal(blocks):
    return torch.block_diag(*blocks)


def attention_logit(context, summary):
    """log of the mean over heads of exp(sqrt(width) cos) of one context with the summary."""
    inputs = len(context)
    heads = max(h for h in range(1, 9) if inputs % h == 0)
    width = inputs // heads
    total = 0.0
    for h in range(heads):
        c, q = (v[h * width : (h + 1) * width].double() for v in (context, summary))
        norms = float(c.norm() * q.norm())
        cosine = float(c @ q) / norms if norms > 0 else 0.0
        total += math.exp(min(math.sqrt(width), 16.0) * cosine)
    return math.log(total / heads)


def alignment_logit(context, demand, entangled):
    """sqrt(min(m, n)) times the cosine between the token's own gradient and the entangled one."""
    own = torch.outer(demand.double(), context.double())
    norms = float(own.norm() * entangled.double().norm())
    cosine = float((own * entangled.double()).sum()) / norms if norms > 0 else 0.0
    return min(math.sqrt(min(own.shape)), 16.0) * cosine


def logits_of_tokens(scores, demands, contexts=None, guide=None):
    """f, and minus infinity for tokens that the loss does not reach."""
    logits = []
    for i, d in enumerate(demands):
        squared = float((d.double() * d.double()).sum())
        if squared == 0.0:
            logits.append(-math.inf)
        elif scores == "gradient":
            logits.append(math.log(squared))
        elif scores == "attention" and guide is not None:
            logits.append(attention_logit(contexts[i], guide))
        elif scores == "alignment" and guide is not None:
            logits.append(alignment_logit(contexts[i], d, guide))
        else:
            logits.append(0.0)
    return torch.tensor(logits, dtype=torch.float64)


def weights_of_tokens(scores, demands, contexts=None, guide=None):
    """softmax(f) over the tokens that the loss reaches."""
    return torch.softmax(logits_of_tokens(scores, demands, contexts, guide), dim=0)


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


def runge_kutta_flow(gradient, context_map, time, gain, decay, steps=2000):
    """dG/dt = G (g Phi - d I), integrated in many small steps of the classical fourth order."""
    field = gain * context_map.double() - decay * torch.eye(len(context_map), dtype=torch.float64)
    g, h = gradient.double(), time / steps
    for _ in range(steps):
        k1 = g @ field
        k2 = (g + h / 2 * k1) @ field
        k3 = (g + h / 2 * k2) @ field
        k4 = (g + h * k3) @ field
        g = g + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return g


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

    def __init__(self, weight, *, lr, options, home=None):
        self.home = home
        self.weight = weight.double().clone()
        self.beginning = self.weight.clone()
        self.lr, self.o = lr, options
        self.momentum = torch.zeros_like(self.weight)
        self.running_means = {}
        self.squares = torch.zeros_like(self.weight)
        self.s = self.t = None
        self.phi_p = self.phi_q = None
        self.row_moment = torch.zeros(weight.shape[0], 1, dtype=torch.float64)
        self.coefficient = options["entanglement"]
        if options["coefficient"] == "cosine":
            self.coefficient = options["coefficient_range"][1]
        self.fast = self.slow = self.best = self.summary = None
        self.steps = self.waited = 0

    def map(self, gradient):
        o = self.o
        if o["flow_time"]:
            flow = (o["flow_time"], o["flow_gain"], o["flow_decay"])
            gradient = runge_kutta_flow(gradient, self.phi_p, *flow, steps=50) if o["power"] else gradient
            return runge_kutta_flow(gradient.T, self.phi_q, *flow, steps=50).T if o["gradient_power"] else gradient
        gradient = gradient @ self.phi_p.T if o["power"] else gradient
        return self.phi_q @ gradient if o["gradient_power"] else gradient

    def kernel(self):
        """Ages of running means over that of an ordinary one, and weights of a gradient that comes in now."""
        kind = self.o["momentum_kernel"]
        if kind == "ema":
            return [(1, 1)]
        if kind == "two":
            return [(1 / 3, 0.45), (3, 0.55)]
        ages, passed = (1 / 3, 1, 3, 9), min(1, self.steps / self.o["coefficient_period"])
        steep = sum(1 / math.sqrt(age) for age in ages)
        return [(age, (1 - passed) / 4 + passed / math.sqrt(age) / steep) for age in ages]

    def step(self, gradient, contexts, demands, loss):
        o = self.o
        outputs, inputs = self.weight.shape
        gradient, contexts, demands = gradient.double(), contexts.double(), demands.double()
        self.fast = loss if self.fast is None else 0.9 * self.fast + 0.1 * loss
        self.slow = loss if self.slow is None else 0.99 * self.slow + 0.01 * loss

        if self.steps % o["refresh_every"] == 0:  # line 8
            keep = o["recurrence"] ** o["refresh_every"]
            guide = self.summary if o["scores"] == "attention" else self.momentum if self.steps else None
            a = weights_of_tokens(o["scores"], demands, contexts, guide)
            context, demand = context_matrix(contexts, a, o["heads"]), context_matrix(demands, a, o["heads"])
            mean = (a[:, None] * contexts).sum(dim=0)
            self.summary = mean if self.summary is None else keep * self.summary + (1 - keep) * mean
            self.s = context if self.s is None else keep * self.s + (1 - keep) * context
            self.t = demand if self.t is None else keep * self.t + (1 - keep) * demand
            self.phi_p, self.phi_q = (
                phi(self.s, o["power"], o["damping"]),
                phi(self.t, o["gradient_power"], o["damping"]),
            )

        last_mapped = self.momentum if o["map_first"] else self.map(self.momentum)
        agreement = float((gradient * last_mapped).sum())
        if o["map_first"]:
            gradient = self.map(gradient)

        self.momentum = torch.zeros_like(self.weight)  # line 7
        for age, weight in self.kernel():  # each age a running mean of its own, which nothing shares
            rate = 1 / (1 + age * (1 / self.coefficient - 1))
            before = self.running_means.get(age, torch.zeros_like(self.weight))
            self.running_means[age] = (1 - rate) * before + rate * weight * gradient
            self.momentum = self.momentum + self.running_means[age]
        entangled = self.momentum
        if o["nesterov"]:
            entangled = self.coefficient * gradient + (1 - self.coefficient) * self.momentum

        mapped = entangled if o["map_first"] else self.map(entangled)  # line 9

        self.squares = o["aux_betas"][1] * self.squares + (1 - o["aux_betas"][1]) * gradient**2
        if o["normalize"] == "adam":
            first = 1 - (1 - self.coefficient) ** (self.steps + 1)
            second = 1 - o["aux_betas"][1] ** (self.steps + 1)
            direction = mapped / first / ((self.squares / second).sqrt() + o["eps"])
        else:
            direction = normalized(mapped, o["normalize"])  # line 10
        if o["row_moment"]:
            decay = o["aux_betas"][1]
            self.row_moment = decay * self.row_moment + (1 - decay) * (direction**2).mean(dim=1, keepdim=True)
            balanced = direction / (self.row_moment.sqrt() + o["eps"])
            direction = balanced * direction.norm() / balanced.norm()

        if self.home is not None:  # away from home contexts, at the norm it had
            turned = direction @ phi(self.home[0], -o["retain_power"], o["retain_damping"])
            turned = phi(self.home[1], -o["retain_gradient_power"], o["retain_damping"]) @ turned
            direction = turned * direction.norm() / turned.norm()
            deviation, s = self.weight - self.beginning, self.home[0].double()
            s = o["retain_pull"] * s / s.diagonal().mean()
            back = self.lr * deviation @ s @ torch.linalg.inv(torch.eye(inputs, dtype=torch.float64) + self.lr * s)

        decay = self.lr * o["weight_decay"]  # line 11
        if o["cautious"]:
            self.weight = torch.where(direction * self.weight > 0, self.weight * (1 - decay), self.weight)
        else:
            self.weight = self.weight * (1 - decay)
        scale = {
            "match_adamw": 1.0 if o["normalize"] == "adam" else 0.2 * math.sqrt(max(outputs, inputs)),
            "spectral": math.sqrt(max(1, outputs / inputs)),
            "none": 1.0,
        }[o["layer_scale"]]
        self.weight = self.weight - self.lr * scale * direction
        if self.home is not None:  # W0 + (W - W0) (I + h k S/s)^-1
            self.weight = self.weight - back

        self.steps += 1
        self.coefficient = self.next_coefficient(agreement)  # line 12

    def next_coefficient(self, agreement):
        o, (low, high) = self.o, self.o["coefficient_range"]
        if o["coefficient"] == "constant":
            return self.coefficient
        if o["coefficient"] == "cosine":
            progress = min(1.0, self.steps / o["coefficient_period"])
            return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2
        signal = 0.0
        if o["coefficient"] == "progress":
            signal = max(-1.0, min(1.0, (self.slow - self.fast) / abs(self.slow)))
        if o["coefficient"] == "plateau":
            if self.best is None or self.fast < self.best - 1e-3 * abs(self.best):
                self.best, self.waited = self.fast, 0
            else:
                self.waited += 1
            if self.waited == 20:
                signal, self.waited = -1.0, 0
        if o["coefficient"] == "hypergradient":
            signal = float(agreement > 0) - float(agreement < 0)
        return max(low, min(high, self.coefficient + o["coefficient_step"] * signal))
