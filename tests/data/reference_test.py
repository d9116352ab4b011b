import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.data.reference import INDEX_FILE, VALUES_FILE, ReferenceLogps


def saved(directory):
    reference = ReferenceLogps.create(directory, "digest", 5, 4)
    reference.values[:] = np.arange(20).reshape(5, 4)
    reference.save()
    return reference


def test_values_come_back(tmp_path):
    saved(tmp_path)
    reference = ReferenceLogps.open(tmp_path, "digest")
    np.testing.assert_array_equal(reference.values, np.arange(20, dtype=np.float32).reshape(5, 4))
    with pytest.raises(ValueError):
        reference.values[0, 0] = 1


def test_rows_that_were_not_computed_are_not_saved(tmp_path):
    reference = ReferenceLogps.create(tmp_path, "digest", 5, 4)
    reference.values[:3] = 0
    with pytest.raises(SeallmError, match="2 of 5 rows"):
        reference.save()
    with pytest.raises(SeallmError, match="does not exist"):
        ReferenceLogps.open(tmp_path, "digest")


def test_another_digest_and_damage_are_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(SeallmError, match="another reference model or data"):
        ReferenceLogps.open(tmp_path, "other")
    path = tmp_path / VALUES_FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SeallmError, match="compute it again"):
        ReferenceLogps.open(tmp_path, "digest")
    np.save(path, np.zeros((2, 2), np.float32))
    with pytest.raises(SeallmError, match="does not match its index"):
        ReferenceLogps.open(tmp_path, "digest")
    (tmp_path / INDEX_FILE).unlink()
    with pytest.raises(SeallmError):
        ReferenceLogps.open(tmp_path)
