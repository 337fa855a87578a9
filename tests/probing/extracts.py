"""Features of a track, and what of them is compared and stored."""

from dataclasses import fields

import torch

from musictf.probing.features import FeatureConfig, TrackFeatures, extract

LAYERS = [0, 1, 2]


def extracted(backbone, track, layers=LAYERS, **config):
    """Features of one track, in float32 unless told otherwise."""
    (found,) = extract(backbone, [track], layers, FeatureConfig(**{"precision": "float32"} | config))
    return found


def tensors(features):
    """By name, read: what is mapped may be deleted."""
    return {field.name: getattr(features, field.name).clone() for field in fields(TrackFeatures)}


def assert_same(first, second):
    for field in fields(TrackFeatures):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name


def entries(cache):
    """What is stored, bit by bit, by name."""
    return {path.name: path.read_bytes() for path in cache.rglob("*.safetensors")}
