"""GradCache: the exact gradient of a contrastive batch that is larger than memory.

The loss needs all representations of a batch at once. The gradient of the encoder does not: given the gradient of the
loss at the representations (the gradient cache), it is a sum over sub-batches. The steps of the paper are here:

1. graph-less forward: embed every sub-batch without an autograd graph (`GradCache.__init__`);
2. representation gradients: differentiate the loss down to the representations (the caller);
3. sub-batch gradient accumulation: embed every sub-batch again, with a graph, and back-propagate its part of the cache
   (`GradCache.backward`);
4. optimisation step (the caller).

The gradient is exact, at the cost of a second forward pass. Accumulating the gradients of small batches is not exact,
because each would have its own few negatives.

Both passes must draw the same random numbers: here these belong to the number of an example, not to a generator state.

Shapes:  n pairs of a batch   D representation

References:
    Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", RepL4NLP 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from musictf.pretraining.pairs import Batch


class GradCache:
    """Representations of one batch, and the gradient of the encoder from their gradient.

    Args:
        embed: Encoder: a batch of n pairs to representations (2n, D), the first views before the second ones.
        batch: The pairs, on any device.
        micro_batch: Pairs of a sub-batch.

    Attributes:
        embeddings: Representations of the whole batch, (2n, D), a leaf that gathers its gradient.
    """

    def __init__(self, embed: Callable[[Batch], Tensor], batch: Batch, micro_batch: int) -> None:
        self.embed, self.batch, self.micro_batch = embed, batch, micro_batch
        with torch.no_grad():
            parts = [embed(part).unflatten(0, (2, -1)) for part in self._sub_batches()]  # each (2, n', D)
        self.embeddings = torch.cat(parts, dim=1).flatten(0, 1).requires_grad_()

    def backward(self, parameters: Sequence[nn.Parameter]) -> None:
        """Accumulate the gradients of ``parameters``, once the loss has been differentiated.

        Only the last sub-batch uses the ordinary backward pass: the hooks of DDP reduce a parameter's gradient when it
        is accumulated, with all that earlier sub-batches added to it, and expect that once a step.

        Args:
            parameters: Trainable parameters of the encoder.
        """
        cache = self.embeddings.grad
        assert cache is not None, "the loss has not been differentiated"
        caches = cache.unflatten(0, (2, -1)).split(self.micro_batch, dim=1)
        *earlier, (last_batch, last_cache) = zip(self._sub_batches(), caches, strict=True)
        for sub_batch, sub_cache in earlier:
            gradients = torch.autograd.grad(
                self.embed(sub_batch), parameters, sub_cache.flatten(0, 1), materialize_grads=True
            )
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        torch.autograd.backward(self.embed(last_batch), last_cache.flatten(0, 1))

    def _sub_batches(self) -> Iterator[Batch]:
        for start in range(0, len(self.batch["first"]), self.micro_batch):
            yield {name: value[start : start + self.micro_batch] for name, value in self.batch.items()}
