"""Rows of an inspection say which of their scores tables show."""

import pytest

from musictf.inspection.events import TARGETS
from musictf.inspection.inspection_rows import shown_scores


@pytest.mark.parametrize("task", [f"attention_{target}" for target in TARGETS])
def test_tables_of_attention_show_the_auc_first(task):
    assert shown_scores(task)[0] == "auc"


def test_what_has_no_list_shows_all():
    assert shown_scores("ssm_profile")[0] == "rank_correlation"
    assert shown_scores("boundary")[0] == "f_measure"
    assert shown_scores("token_map") == ()
