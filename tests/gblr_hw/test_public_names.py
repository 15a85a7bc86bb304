"""What `from gblr_hw import ...` offers: every name is there, where it is said to be, and in `dir`."""

from __future__ import annotations

import pytest

import gblr_hw


@pytest.mark.parametrize("name", gblr_hw.__all__)
def test_a_public_name_is_there(name: str) -> None:
    found = getattr(gblr_hw, name)
    assert found.__name__ == name
    assert name in dir(gblr_hw)
    assert found.__doc__


def test_names_are_those_with_a_home() -> None:
    assert set(gblr_hw.__all__) == set(gblr_hw._HOMES)
    with pytest.raises(AttributeError, match="module 'gblr_hw' has no attribute 'nothing'"):
        _ = gblr_hw.nothing  # type: ignore[attr-defined]
