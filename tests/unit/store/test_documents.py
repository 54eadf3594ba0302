from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.store.errors import StoreCorrupt
from patrolserver_exporter.store.tables import check, seal, unseal

VALUES = st.dictionaries(st.text(max_size=5), st.integers(0, 2**53) | st.text(max_size=20), max_size=5)


@given(VALUES)
def test_what_is_sealed_comes_back(value: dict[str, object]) -> None:
    """A sealed value is read as it was written, from bytes and from a view of bytes."""
    assert unseal(seal(value), dict) == value
    assert unseal(bytes(memoryview(seal(value))), dict) == value


@given(VALUES, st.data())
def test_any_flipped_bit_is_found(value: dict[str, object], data: st.DataObject) -> None:
    """No single changed byte passes for a value."""
    document = bytearray(seal(value))
    place = data.draw(st.integers(0, len(document) - 1))
    document[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreCorrupt):
        check(bytes(document))
    with pytest.raises(StoreCorrupt):
        unseal(bytes(document), dict)


@given(VALUES, st.integers(1, 100))
def test_a_document_that_is_cut_short_is_found(value: dict[str, object], lost: int) -> None:
    """A missing end is damage."""
    document = seal(value)
    with pytest.raises(StoreCorrupt):
        unseal(document[: max(len(document) - lost, 0)], dict)


def test_a_document_of_another_type_is_found() -> None:
    """A sound seal around something else is damage too."""
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        unseal(seal("text"), int)
