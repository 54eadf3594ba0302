from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.live.blocks import Block, Column
from patrolserver_exporter.live.encoding import inflate

ROWS = 7


@given(st.lists(st.tuples(st.integers(0, ROWS - 1), st.binary(max_size=40), st.booleans())))
def test_column_holds_what_was_put_last(steps: list[tuple[int, bytes, bool]]) -> None:
    """Whatever is put in whatever order, with or without a scrape between, a column is its rows in a row."""
    column = Column()
    for _ in range(ROWS):
        column.grow()
    model = [b""] * ROWS
    for row, lines, scrape in steps:
        assert column.put(row, lines) == (model[row] != lines)
        model[row] = lines
        if scrape:
            assert inflate(column.piece()) == b"".join(model)
    assert inflate(column.piece()) == b"".join(model)


def test_unchanged_column_keeps_its_piece() -> None:
    """What did not change is not compressed again."""
    column = Column()
    column.grow()
    column.put(0, b"a 1.0\n")
    piece = column.piece()
    column.put(0, b"a 1.0\n")
    assert column.piece() is piece


def test_block_counts_the_families_that_changed() -> None:
    """A change is counted in the families that it touches, and only there."""
    block = Block(3)
    block.grow()
    assert block.put(0, [b"a\n", b"", b"c\n"]) == 2
    first = [block.piece(family) for family in range(3)]
    assert block.put(0, [b"a\n", b"", b"d\n"]) == 1
    assert block.piece(0) is first[0]
    assert inflate(block.piece(2)) == b"d\n"
    assert block.clear(0) == 2
    assert [block.piece(family).length for family in range(3)] == [0, 0, 0]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=ROWS), st.data())
def test_a_column_that_was_loaded_is_one_that_was_filled(lines: list[bytes], data: st.DataObject) -> None:
    """Its rows can be changed and found like those that came one by one."""
    column = Column()
    column.load(lines)
    assert inflate(column.piece()) == b"".join(lines)
    row = data.draw(st.integers(0, len(lines) - 1))
    assert not column.put(row, lines[row])
    assert column.lines(row) == lines[row]
    assert column.put(row, b"other" + lines[row])
    column.grow()
    assert inflate(column.piece()) == b"".join([*lines[:row], b"other", *lines[row:]])
