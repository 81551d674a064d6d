"""Neighbours, against every pair looked at one by one."""

from __future__ import annotations

import numpy as np
import pytest

from prefopt.modalities.vision_language.building.neighbours import neighbours


def slow(vectors, most, least, alike):
    out = []
    for i, one in enumerate(vectors):
        best = None
        for j, other in enumerate(vectors):
            cosine = float(one @ other)
            if i == j or cosine > most or cosine < least:
                continue
            if alike[i] is not None and alike[i] == alike[j]:
                continue
            if best is None or cosine > best[1]:
                best = (j, cosine)
        out.append(best)
    return out


@pytest.fixture(scope="module")
def vectors():
    found = np.random.default_rng(0).normal(size=(37, 3)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[5] = found[4]  # a copy
    return found


@pytest.mark.parametrize("block", [1, 8, 512])
@pytest.mark.parametrize(("most", "least"), [(0.98, 0.5), (0.8, 0.75), (1.1, -1.0)])
def test_neighbours_are_those_found_one_by_one(vectors, block, most, least):
    alike = [None if n % 5 == 0 else frozenset({n % 3}) for n in range(len(vectors))]
    found = neighbours(vectors, most=most, least=least, alike=alike, block=block)
    expected = slow(vectors, most, least, alike)
    assert [None if one is None else one.place for one in found] == [one and one[0] for one in expected]
    assert any(one is None for one in found) == (least > 0.7)
    for one, other in zip(found, expected, strict=True):
        assert one is None or one.similarity == pytest.approx(other[1], abs=1e-6)


def test_a_copy_is_passed_over(vectors):
    found = neighbours(vectors, most=0.98, least=-1)
    assert found[4].place == found[5].place not in (4, 5)
    assert neighbours(vectors, most=1.1, least=-1)[4].place == 5
