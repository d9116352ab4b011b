"""Record files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.record_file import read_records, record_header

KIND = np.dtype([("a", np.uint64), ("b", np.uint16, (3,))])


@given(st.integers(0, 50), st.dictionaries(st.text(max_size=5), st.integers()))
@settings(deadline=None, max_examples=30)
def test_round_trip(tmp_path_factory, count, settings_):
    path = tmp_path_factory.mktemp("x") / "x"
    records = np.frombuffer(np.random.default_rng(0).bytes(count * KIND.itemsize), KIND)
    header = record_header("things 1", settings_)
    path.write_bytes(header + records.tobytes())
    found = read_records(path, header, KIND)
    assert found.dtype == KIND and found.tobytes() == records.tobytes()
    other = record_header("things 1", settings_ | {"further": 1})
    with pytest.raises(SeallmError, match="written under other settings"):
        read_records(path, other, KIND)


def test_damage(tmp_path):
    header = record_header("things 1", {})
    (tmp_path / "x").write_bytes(header + bytes(KIND.itemsize + 1))
    with pytest.raises(SeallmError, match="x is damaged"):
        read_records(tmp_path / "x", header, KIND)
    with pytest.raises(SeallmError, match="cannot read .*none: No such file"):
        read_records(tmp_path / "none", header, KIND)
