"""Contrastive pretraining: raw audio in, one backbone file out."""
