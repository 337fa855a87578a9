"""Names that rows and configurations use: kinds of systems, baselines, controls, attention curves and readouts."""

from __future__ import annotations

# Kinds of systems: the field ``backbone.kind`` of a row.
PRETRAINED = "pretrained"
RANDOM = "random"  # untrained weights
CLASSICAL = "classical"  # a system without learning
MAJORITY = "majority"  # an estimate that ignores the audio
ORACLE = "oracle"  # the ceiling: true labels at the token rate, decoded

# Controls without an encoder: frames of features, probed as if they were tokens. ``input`` is what an encoder is given.
FRAME_CONTROLS = ("input", "mel", "mfcc", "chroma")

# Controls of an inspection: random weights, and the backbone on audio that replaces the music.
INSPECTION_CONTROLS = (RANDOM, "silence", "noise")

# All kinds in the order of tables: the oracle is the ceiling and comes last.
KINDS = (PRETRAINED, *INSPECTION_CONTROLS, *FRAME_CONTROLS, CLASSICAL, MAJORITY, ORACLE)

# These have a decoder of their own, so tables compare them with the systems of every decoder.
DECODER_FREE = frozenset({CLASSICAL, MAJORITY})
# No head is trained for these: their layer and seed mean nothing.
UNPROBED = DECODER_FREE | {ORACLE}

# Baselines that are probed with the same heads as the backbone; gains are measured over them.
PROBED_BASELINES = (RANDOM, *FRAME_CONTROLS)
# Choices of ``baselines=`` of ``musictf probe``.
PROBE_BASELINES = (*PROBED_BASELINES, CLASSICAL, MAJORITY, ORACLE)
# Baselines of an inspection, in the order of its tables; ``flux`` is the spectral flux of the input.
INSPECTION_BASELINES = (*INSPECTION_CONTROLS, "flux", "mel", "mfcc", "chroma")

# What is read from an attention head over time: attention received by a token, attention that the class token pays to
# it, and the change of attention from token to token.
ATTENTION_CURVES = ("received", "class_row", "change")

# What a probe reads: the class token, the sequence tokens, or the mean over time of both.
READOUTS = ("class", "sequence", "average")
