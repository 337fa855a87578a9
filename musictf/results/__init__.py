"""Results on disk and the statistics over them; no torch here."""
