"""Arrays out of .npy files, whole and in part."""

from pathlib import Path

import numpy as np
import pytest

from prefopt.motion.arrays import npy_header, read_npy

ARRAYS = {
    "rows": np.arange(30, dtype="float32").reshape(10, 3),
    "columns": np.asfortranarray(np.arange(30.0).reshape(10, 3)),
    "three axes, other byte order": np.arange(48).reshape(8, 2, 3).astype(">i4"),
    "one axis": np.arange(9),
    "no entries": np.zeros((0, 3)),
    "no axes": np.array(3.0),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, name: str) -> None:
    array = ARRAYS[name]
    np.save(tmp_path / "a.npy", array)
    assert npy_header(tmp_path / "a.npy") == (array.shape, array.dtype)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), array)
    if array.ndim:
        for start, end in ((2, 5), (0, None), (4, 99), (7, 3), (50, 60)):
            np.testing.assert_array_equal(read_npy(tmp_path / "a.npy", start, end), array[start:end])
