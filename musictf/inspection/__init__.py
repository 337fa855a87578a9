"""Analysis of a backbone with controls: attention and onsets, self-similarity, position, token maps."""
