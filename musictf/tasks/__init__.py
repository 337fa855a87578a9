"""Downstream tasks, one file each: annotation, target, loss, estimate, score.

`base` defines `Task`. `chord_agreement` and `chroma` hold no task: several tasks use them.
"""
