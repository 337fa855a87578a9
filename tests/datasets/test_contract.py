"""What every corpus must do, for all that stand in ``musictf/datasets``."""

import dataclasses
import importlib
import pkgutil
from pathlib import Path

import pytest

import musictf.datasets
from musictf.config import subclasses
from musictf.datasets.base import Dataset
from musictf.errors import InputError

CONF = Path(musictf.datasets.__file__).resolve().parents[2] / "conf" / "dataset"

# The user's own data and what is made here: nobody publishes them, and an empty copy may be right.
OWN = {"manifest", "folder", "packed", "synthetic"}
# Gives access to the corpora of a library: it needs to be told which, and its index is the library's.
ADAPTERS = {"mirdata"}

CORPORA = sorted(subclasses(musictf.datasets, Dataset), key=lambda corpus: corpus.name)


def module_of(corpus):
    return corpus.__module__.rsplit(".", 1)[1]


@pytest.fixture(params=CORPORA, ids=lambda corpus: corpus.name)
def corpus(request):
    return request.param


@pytest.fixture(params=[corpus for corpus in CORPORA if corpus.name not in OWN | ADAPTERS], ids=lambda c: c.name)
def rooted(request):
    """A corpus that is read from one folder with an index of its own."""
    return request.param


def message_of(corpus):
    with pytest.raises(InputError) as caught:
        corpus.all_tracks()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_names_are_unique():
    assert len({corpus.name for corpus in CORPORA}) == len(CORPORA)


def test_every_choice_in_conf_is_a_corpus():
    assert {path.stem for path in CONF.glob("*.yaml")} == {module_of(corpus) for corpus in CORPORA}


def test_a_module_holds_one_corpus():
    modules = [module_of(corpus) for corpus in CORPORA]
    assert len(set(modules)) == len(modules)
    assert set(modules) <= {module.name for module in pkgutil.iter_modules(musictf.datasets.__path__)}


def test_the_choice_in_conf_has_the_name_of_the_module_and_names_the_class(corpus):
    lines = (CONF / f"{module_of(corpus)}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert any(line.replace(" ", "") == f"defaults:[{corpus.__name__}]" for line in lines)


def test_every_corpus_says_what_it_is(corpus):
    assert corpus.name == module_of(corpus)
    assert corpus.citation
    assert corpus.license
    assert corpus.homepage or corpus.name in OWN
    assert corpus.__doc__
    assert not corpus.__doc__.startswith(f"{corpus.__name__}(")  # what a dataclass writes where nobody did
    assert importlib.import_module(corpus.__module__).__doc__


def test_published_counts_and_bad_tracks_are_stated_as_such(corpus):
    assert all(isinstance(count, int) and count > 0 for count in corpus.published.values())
    assert all(reason for reason in corpus.known_bad.values())


def test_every_key_has_a_default_and_is_explained(corpus):
    for field in dataclasses.fields(corpus):
        assert field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        own = field.name in vars(corpus).get("__annotations__", {})
        if own and corpus.name not in OWN and field.name != "root":
            assert f"{field.name}:" in corpus.__doc__


def test_without_a_root_the_key_that_is_missing_is_named(rooted):
    assert "dataset.root" in message_of(rooted())


def test_a_root_that_is_no_folder_is_refused(rooted, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        assert f"{path} is not a folder" in message_of(rooted(root=str(path)))


def test_an_empty_folder_is_refused_in_one_line_that_says_how_to_go_on(rooted, tmp_path):
    assert str(tmp_path) in message_of(rooted(root=str(tmp_path)))
    assert "data prepare" in message_of(rooted(root=str(tmp_path)))
