"""Corpora decoded once for all: making packs and reading them."""
