"""Rows as tables and pictures; no torch here."""
