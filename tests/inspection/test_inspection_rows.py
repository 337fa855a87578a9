"""Rows of an inspection say which of their scores tables show."""

import pytest

from musictf.inspection.events import TARGETS
from musictf.inspection.inspection_rows import table_scores


@pytest.mark.parametrize("task", [f"attention_{target}" for target in TARGETS])
def test_tables_of_attention_show_the_auc_first(task):
    assert table_scores(task)[0] == "auc"


def test_what_has_no_list_shows_all():
    assert table_scores("ssm_profile")[0] == "rank_correlation"
    assert table_scores("boundary")[0] == "f_measure"
    assert table_scores("token_map") == ()
