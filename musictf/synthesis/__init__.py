"""The synthetic corpus: how its songs are composed and played."""
