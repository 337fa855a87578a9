"""Rows as tables, figures and pages, and their mirror in Weights & Biases; no torch here."""
