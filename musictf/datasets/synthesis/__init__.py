"""How the synthetic corpus is composed and played; private to ``musictf.datasets.synthetic``.

From notation to sound: ``harmony`` (chords and progressions), ``form`` (tempo, metre, sections: which chord sounds
when), ``patterns`` and ``parts`` (notes of each player), ``composition`` (a whole song), ``instruments`` and
``percussion`` (single notes as waveforms), ``rendering`` (a song as a recording), ``files`` (a recording on disk).
Nothing here imports torch: the processes that make the tracks start fast and stay small.
"""
