"""Downstream tasks, one file each: annotation, target, loss, estimate, score.

`base` defines `Task`. `chord_scores` and `chroma` define no task: tasks use their functions.
"""
