"""Datasets: tracks, folders, manifests, splits, identities, checks, and building blocks for corpora."""
