"""Pretraining losses as pure functions."""
