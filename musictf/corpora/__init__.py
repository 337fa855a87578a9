"""Published corpora, one file each. To add one, copy a short file (``hainsworth.py``); no list is edited.

What a corpus must have: `musictf.datasets.base.Dataset`. Step by step: ``docs/extending.md``.
"""
