"""A contrastive batch larger than memory: embed it in parts without a graph, contrast all, embed each part again.

The loss needs every embedding at once, but the gradient of the network needs one part at a time: given the slope of
the loss at the embeddings, the gradient of the batch is the sum of those of its parts. That is exact, at the cost of a
second forward pass; accumulating gradients of small batches is not, because each has its own few negatives.

Nothing random may differ between the two passes: here it is drawn from the number of each example, not from a state.

References:
    Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", RepL4NLP 2021 (GradCache).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from musictf.pretraining.excerpts import Batch


class GradCache:
    """The two passes over one batch.

    Args:
        embed: Batch of n pairs to embeddings (2n, D), the first views before the second ones.
        batch: The pairs, on any device.
        micro_batch: Pairs embedded at a time.
    """

    def __init__(self, embed: Callable[[Batch], Tensor], batch: Batch, micro_batch: int) -> None:
        self.embed, self.batch, self.micro_batch = embed, batch, micro_batch
        with torch.no_grad():
            parts = [embed(part).unflatten(0, (2, -1)) for part in self._parts()]
        self.embeddings = torch.cat(parts, dim=1).flatten(0, 1).requires_grad_()

    def backward(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add to the gradients of ``parameters`` once those of ``embeddings`` are known.

        The last part alone is differentiated in the ordinary way: DDP counts a parameter as ready when its gradient is
        added to, takes all that has been added by then, and wants to hear of it once.
        """
        slope = self.embeddings.grad
        assert slope is not None, "the loss has not been differentiated"
        slopes = slope.unflatten(0, (2, -1)).split(self.micro_batch, dim=1)
        *before, last = zip(self._parts(), slopes, strict=True)
        for part, own in before:
            found = torch.autograd.grad(self.embed(part), parameters, own.flatten(0, 1), materialize_grads=True)
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        torch.autograd.backward(self.embed(last[0]), last[1].flatten(0, 1))

    def _parts(self) -> Iterator[Batch]:
        for start in range(0, len(self.batch["first"]), self.micro_batch):
            yield {name: value[start : start + self.micro_batch] for name, value in self.batch.items()}
