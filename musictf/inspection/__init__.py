"""What emerges in a backbone, as numbers with controls: attention and onsets, self-similarity, position, token maps."""
