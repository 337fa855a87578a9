"""Downstream tasks, one file each: annotation, target, loss, estimate, score."""
