"""Counter-based random numbers: they depend on a seed alone, not on the rest of the batch or the device.

There is no state. Number k of stream s of a seed is a hash of (seed, s, k). So a row draws the same numbers alone, in
another batch, in another process or after a restart; torch's generators are neither read nor advanced. A longer draw
begins with the numbers of a shorter one.

Shapes:  B rows, each with a seed   n numbers of a row
Units:   seeds and hashes are int64 tensors that hold the 64 bits of an unsigned number; products wrap around.

References:
    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (random numbers as a hash of a counter).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(bits: int) -> int:
    """The int64 with the same 64 bits as an unsigned number: torch lacks arithmetic on uint64."""
    return bits - (1 << 64) if bits >> 63 else bits


# Constants of SplitMix64.
_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST_FACTOR, _SECOND_FACTOR = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)
_DIGITS = 24  # bits that a float32 holds exactly


def uniform(seeds: Tensor, stream: int, n: int) -> Tensor:
    """Numbers in [0, 1), multiples of 2**-24.

    Args:
        seeds: (B,), int64.
        stream: Number of one of the independent sequences of a seed.
        n: Numbers for each seed.

    Returns:
        (B, n), float32, the same bits on every device.
    """
    return _fraction(_hashes(seeds, stream, n), 64 - _DIGITS)


def normal(seeds: Tensor, stream: int, n: int) -> Tensor:
    """Standard normal numbers by the Box-Muller transform; none is beyond 5.8.

    Args:
        seeds: (B,), int64.
        stream: Number of one of the independent sequences of a seed.
        n: Numbers for each seed.

    Returns:
        (B, n), float32, the same to float rounding on every device.
    """
    hashes = _hashes(seeds, stream, (n + 1) // 2)
    # 1 - u lies in (0, 1], so its logarithm is finite. One hash holds enough bits for radius and angle.
    radius = (-2 * torch.log(1 - _fraction(hashes, 64 - _DIGITS))).sqrt()
    angle = 2 * math.pi * _fraction(hashes, 64 - 2 * _DIGITS)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, :n]


def splitmix64(counters: Tensor) -> Tensor:
    """The output function of SplitMix64: a bijection of 64 bits whose outputs for neighbouring inputs look independent.

    Args:
        counters: int64, (...) of any shape.

    Returns:
        int64, (...) of the same shape.
    """
    bits = (counters ^ _shifted(counters, 30)) * _FIRST_FACTOR
    bits = (bits ^ _shifted(bits, 27)) * _SECOND_FACTOR
    return bits ^ _shifted(bits, 31)


def _hashes(seeds: Tensor, stream: int, n: int) -> Tensor:
    """Outputs of SplitMix64, (B, n), from a state that is itself a hash, so that nearby seeds share no states."""
    states = splitmix64(splitmix64(seeds + _STEP) + _signed(stream * _STEP % (1 << 64)))
    return splitmix64(states[:, None] + _STEP * torch.arange(1, n + 1, device=seeds.device))


def _shifted(bits: Tensor, shift: int) -> Tensor:
    """Logical right shift: zeros come in, where torch's shift copies the sign."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)


def _fraction(hashes: Tensor, lowest: int) -> Tensor:
    """Bits ``lowest`` to ``lowest`` + 23 as a number in [0, 1)."""
    return ((hashes >> lowest) & ((1 << _DIGITS) - 1)).float() * 2.0**-_DIGITS
