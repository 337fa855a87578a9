"""What every dataset must do: published corpora, the user's own folders, packs and synthetic songs."""

import dataclasses
import importlib
import pkgutil

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

import musictf.corpora
from musictf.config import dataset_classes, groups, register
from musictf.errors import InputError

# The user's own data and generated songs: nobody publishes them, and an empty copy may be right.
OWN = {"manifest", "folder", "packed", "synthetic"}
# Gives access to the corpora of a library: it needs the name of one, and its index is the library's.
ADAPTERS = {"mirdata"}

CORPORA = sorted(dataset_classes(), key=lambda corpus: corpus.name)


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


def test_the_choices_found_in_the_source_are_the_classes():
    assert list(groups()["dataset"]) == [corpus.name for corpus in CORPORA]


def test_a_module_holds_one_corpus():
    modules = [module_of(corpus) for corpus in CORPORA]
    assert len(set(modules)) == len(modules)
    published = {module.name for module in pkgutil.iter_modules(musictf.corpora.__path__)}
    assert set(modules) == published | OWN


def test_the_choice_has_the_name_of_the_module_says_what_it_is_and_names_the_class(corpus):
    assert groups()["dataset"][module_of(corpus)] == importlib.import_module(corpus.__module__).__doc__.split("\n")[0]
    register()
    assert OmegaConf.get_type(ConfigStore.instance().load(f"dataset/{corpus.name}.yaml").node) is corpus


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
