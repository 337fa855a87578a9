"""Frozen features of whole tracks: excerpts, extraction, the store and readouts."""
