"""Downstream tasks, one file each: annotation, target, loss, estimate, score.

``base`` says what a task is; ``agreement`` (of chords) and ``chroma`` hold no task: they are what tasks share.
"""
