"""A problem that heads can learn, and fits of it: four classes of features on very different scales."""

import numpy as np
import torch.nn.functional as F

from musictf.probing.module import ProbeConfig, fit
from musictf.runs import TrainerConfig
from musictf.tasks.base import Task

CPU = TrainerConfig(accelerator="cpu")
CLASSES = 4


class Classes(Task):
    """One of four classes."""

    name = "classes"
    num_outputs = CLASSES

    def loss(self, logits, targets):
        return F.cross_entropy(logits, targets)


def problem(seed, num_examples, num_layers=2, dim=12, noise=1.5):
    """Gaussian clouds, more apart in later layers, on features of very different scale."""
    clouds = np.random.default_rng(99)
    centres, scales = clouds.normal(size=(num_layers, CLASSES, dim)), 10.0 ** clouds.uniform(-2, 2, size=dim)
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, CLASSES, num_examples)
    layers = [
        (1 + layer) * centres[layer, targets] + noise * generator.normal(size=(num_examples, dim))
        for layer in range(num_layers)
    ]
    return (np.stack(layers, axis=1) * scales + 5 * scales).astype(np.float32), targets


def config(**changes):
    return ProbeConfig(**{"learning_rates": [1e-2], "steps": 60, "batch_size": 128, "valid_every": 20} | changes)


def trained(train, valid, settings, seed=0, layers=(0, 1), task=None, **others):
    """The heads of one readout and one seed."""
    ((_, heads),) = fit(task or Classes(), train, valid, layers, settings, CPU, [seed], **others).items()
    return heads


def final(probe, *cell):
    return [part.detach() for part in probe.grid.parts(*cell)]
