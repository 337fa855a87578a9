"""Packs: corpora that are decoded once. Making and reading them."""
