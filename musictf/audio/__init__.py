"""Audio: excerpts from files, and the spectrogram."""
