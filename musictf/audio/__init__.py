"""Audio: excerpts of files, the spectrogram, augmentations, perturbations and fingerprints."""
