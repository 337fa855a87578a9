"""Probes scored on a test split, as rows with intervals."""
