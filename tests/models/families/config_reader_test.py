from __future__ import annotations

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.models.families.config_reader import ConfigReader


def test_null_is_not_absent():
    read = ConfigReader({"sliding_window": None}, {"sliding_window": 4096, "head_dim": 128})
    assert read.get("sliding_window") is None
    assert read.whole("head_dim") == 128
    with pytest.raises(SeallmError, match="config.json: sliding_window is None; a whole number from 1 on is needed"):
        read.whole("sliding_window")


def test_spellings_of_one_key_must_agree():
    assert ConfigReader({"n_embed": 8}, {}).whole("hidden_size", "n_embed") == 8
    assert ConfigReader({"hidden_size": 8, "n_embed": 8}, {}).whole("hidden_size", "n_embed") == 8
    with pytest.raises(SeallmError, match="n_embed is 9; hidden_size is 8, and they must agree"):
        ConfigReader({"hidden_size": 8, "n_embed": 9}, {}).whole("hidden_size", "n_embed")


def test_whole_numbers_are_numbers_and_truth_values_are_not():
    read = ConfigReader({"theta": 10000, "flag": True}, {}, where="config.json: rope_scaling")
    assert isinstance(read.number("theta"), float)
    assert read.flag("flag") is True
    for method in (read.number, read.whole):
        with pytest.raises(SeallmError, match="config.json: rope_scaling: flag is True; a .*number.* is needed"):
            method("flag")


def test_only_a_value_that_is_there_can_be_refused():
    read = ConfigReader({"n_inner": 12}, {"slow_but_exact": True})
    read.refuse_unless("slow_but_exact", False)
    read.refuse_unless("n_inner", None, 12)
    with pytest.raises(SeallmError, match="n_inner is 12; only None or 16 is supported"):
        read.refuse_unless("n_inner", None, 16)
