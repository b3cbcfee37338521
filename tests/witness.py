"""An observer that keeps what it sees, so that it can be compared with the gradient that autograd made of the same products."""

import torch

from cegm.context.patches import context_rows, demand_rows
from cegm.context.taps import Observer, Place, watch


class Witness(Observer):
    """Keeps what it sees: for every product its contexts (tokens, inputs), and after backward its demands (tokens, outputs)."""

    def __init__(self, parameter, turns=False):
        super().__init__()
        self.parameter, self.seen, self.lost, self.turns, self.turned = parameter, [], [], turns, False

    def listens(self, module):
        return True

    def lose(self, why):
        self.lost.append(why)

    def turn(self, transposed):
        self.turned = self.turns
        return self.turns

    def see(self, output, contexts, walk, part):
        entry = {"part": part, "contexts": context_rows(contexts, walk).detach()}
        self.seen.append(entry)
        tapped = output.clone()
        tapped.register_hook(
            lambda d: entry.update(
                demands=demand_rows(d, walk).reshape(-1, d.shape[-1] if walk is None else d.shape[-1 - walk.dimensions])
            )
        )
        return tapped

    def gradient(self, part=0):
        """sum_i d_i c_i^T of one matrix: equal to its gradient if, and only if, everything was seen."""
        rows = [(e["demands"], e["contexts"]) for e in self.seen if e["part"] == part and "demands" in e]
        return sum(d.reshape(-1, d.shape[-1]).T.double() @ c.double() for d, c in rows)

    def agrees(self, transposed=False, tolerance=1e-5):
        """Whether the gradient of each matrix is the sum of what was seen of it."""
        gradient = self.parameter.grad
        parts = gradient if gradient.ndim == 3 and not self.is_kernel else gradient.flatten(1)[None]
        for part, expected in enumerate(parts):
            found = torch.zeros(expected.shape, dtype=torch.float64) + _turned(self.gradient(part), transposed)
            torch.testing.assert_close(found, expected.double(), rtol=tolerance, atol=tolerance)
        return True

    is_kernel = False


def _turned(gradient, transposed):
    return gradient.T if transposed and isinstance(gradient, torch.Tensor) else gradient


def witnessed(module, path="weight", transposed=False, turns=False):
    place = Place(module, path)
    witness = Witness(place.weight(), turns)
    witness.is_kernel = isinstance(module, torch.nn.modules.conv._ConvNd)
    watch(place, witness, transposed)
    return witness
