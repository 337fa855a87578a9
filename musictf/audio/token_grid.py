"""Times of tokens.

Units:  times in seconds, rates in hertz, positions in samples.

Labels, features, curves and figures all use these times. Positions are whole samples, divided by the rate
once and at the end, so that times do not drift over long tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TokenGrid:
    """Positions of the tokens of an excerpt. Token k has its centre at ``start + offset + k * hop_length`` samples.

    Attributes:
        sample_rate: Of the waveform, in hertz.
        hop_length: Samples between the centres of neighbouring tokens.
        offset: Samples from the start of the excerpt to the centre of its first token; 0 for centred spectrograms.
        window: Samples that a token needs inside the excerpt; 0 where the excerpt is padded at both ends.
    """

    sample_rate: int
    hop_length: int
    offset: int = 0
    window: int = 0

    @property
    def token_rate(self) -> float:
        """Tokens a second."""
        return self.sample_rate / self.hop_length

    def num_tokens(self, num_samples: int) -> int:
        """Tokens of an excerpt of ``num_samples`` samples.

        Example:
            >>> TokenGrid(16_000, 512).num_tokens(64_000)  # both edges have a token
            126
        """
        return max(0, (num_samples - self.window) // self.hop_length + 1)

    def times(self, num_tokens: int, start: int = 0) -> npt.NDArray[np.float64]:
        """Centres in seconds of the tokens of an excerpt that starts at sample ``start``, (num_tokens,)."""
        return (start + self.offset + np.arange(num_tokens, dtype=np.int64) * self.hop_length) / self.sample_rate
