"""Tables as text: they fit the terminal, and nothing of them is lost."""

import pytest

from platform_report.tables import Column, Number, Table, Words, write_text_table

NOTE = "the run was stopped and goes on with: platform run --resume runs/" + "long/" * 12


def table(labels: int, numbers: int) -> Table:
    columns = [Column(f"label {n}", number=False) for n in range(labels)]
    columns += [Column(f"bits per character of text {n}", "standard error") for n in range(numbers)]
    rows = [
        (
            *(Words(f"seed={row} of many words in row {n}") for n in range(labels)),
            *(Number(1000.0 * row + n, 0.25, ("a",)) for n in range(numbers)),
        )
        for row in range(3)
    ]
    return Table("What came out", tuple(columns), tuple(rows), {"a": NOTE})


@pytest.mark.parametrize("room", [40, 80, 200])
@pytest.mark.parametrize(("labels", "numbers"), [(1, 0), (1, 1), (2, 3), (1, 30), (4, 9)])
def test_a_table_of_text_fits_the_terminal_and_loses_nothing(monkeypatch, room, labels, numbers):
    monkeypatch.setenv("COLUMNS", str(room))
    wide = table(labels, numbers)
    written = write_text_table(wide)
    assert all(len(line) <= room for line in written.splitlines() if "long/" not in line)
    words = written.split()
    for row in wide.texts():
        for text in row[labels:]:
            assert f"{text} [a]" in written
        for text in row[:labels]:
            assert set(text.split()) <= set(words)
    assert " ".join(words).endswith(f"[a] {NOTE}")


def test_each_part_of_a_divided_table_begins_with_the_first_column(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    parts = write_text_table(table(1, 12)).split("\n\n")[1:-1]
    assert len(parts) > 1
    assert all(part.startswith("label 0") for part in parts)


def test_a_table_that_fits_is_not_folded(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = write_text_table(table(1, 1)).splitlines()
    assert lines[2].split("  ")[-1] == "bits per character of text 0"
