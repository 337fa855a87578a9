"""The synthetic corpus: composing and rendering its songs."""
