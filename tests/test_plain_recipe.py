"""The plain recipe: one file, every value of it with the source it comes from, and nothing left to a default."""

from __future__ import annotations

import dataclasses
import re

import pytest
import yaml

from musictf.config import compose, conf_folder

FILE = conf_folder() / "experiment" / "emergent.yaml"
TAG = re.compile(r"# .*\[(P|A|C|I|NF)\]")


@pytest.fixture
def run():
    return compose("pretrain", ["experiment=emergent"])


def test_every_value_names_its_source():
    values = [line for line in FILE.read_text().splitlines() if re.match(r"\s*\w+: \S", line) and line[0] != "#"]
    assert len(values) > 25
    assert [line for line in values if not TAG.search(line)] == []


@pytest.mark.parametrize("section", ["front_end", "optim", "model", "objective"])
def test_no_value_of_the_recipe_is_left_to_a_default(run, section):
    stated = set(yaml.safe_load(FILE.read_text())[section])
    known = {field.name for field in dataclasses.fields(getattr(run, section))} - {"preset"}
    assert stated == known - ({"widths"} if section == "objective" else set())


def test_the_plain_recipe_has_none_of_our_options(run):
    assert run.augment.off
    assert run.token_dropping == 0
    assert (run.pairs.excerpts_per_track, run.pairs.batch_by, run.pairs.weights) == (1, None, [])
    assert run.guard.spike == 0
