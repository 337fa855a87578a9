"""The fixtures of features, which probing has too."""

from feature_fixtures import backbone, cache, elsewhere, few, passes, wav  # noqa: F401
