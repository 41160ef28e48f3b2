"""Tables of results: one kind of table, written as text, Markdown, CSV, LaTeX, HTML or JSON.

    Table(columns, rows of cells, notes)  --FORMATS[name]-->  text

A number is shown with its spread, both rounded to two digits of the column's median spread; CSV and
JSON keep every digit, and the spread has its own column. Marks refer to the notes below. The text
writers are our own, because tabulate pads the heads of columns by two spaces. Used by `platform
compare` and `platform report`; imports no torch.
"""

import csv
import io
import itertools
import json
import math
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, final

from jinja2 import Environment, PackageLoader, StrictUndefined

SIGNIFICANT = 4
"""Significant digits of a number without a spread."""

MAX_DECIMALS = 5


class Cell(ABC):
    """The content of one cell of a table."""

    marks: tuple[str, ...]
    """Letters of the notes that the cell needs."""

    @abstractmethod
    def text(self, decimals: int | None) -> str:
        """The cell for a reader, without marks; a number with `decimals` decimals."""

    @abstractmethod
    def values(self) -> tuple[Any, Any]:
        """The cell for a program: the value, and its spread or None."""


@final
@dataclass(frozen=True)
class Words(Cell):
    """A cell of text, with the page that it links to in HTML."""

    words: str
    link: str | None = None
    marks: tuple[str, ...] = ()

    def text(self, decimals: int | None) -> str:
        return self.words

    def values(self) -> tuple[str, None]:
        return self.words, None


@final
@dataclass(frozen=True)
class Number(Cell):
    """A value and its spread, if known (a standard error or deviation; the column says which)."""

    value: float
    spread: float | None = None
    marks: tuple[str, ...] = ()

    def text(self, decimals: int | None) -> str:
        """Value ± spread; integers without decimals."""
        if isinstance(self.value, int):
            return f"{self.value:,}"
        if decimals is None or not math.isfinite(self.value):
            return f"{self.value:.{SIGNIFICANT}g}"
        value = f"{self.value:.{decimals}f}"
        return value if self.spread is None else f"{value} ± {self.spread:.{decimals}f}"

    def values(self) -> tuple[float, float | None]:
        """Value and spread with every digit."""
        return self.value, self.spread


@final
@dataclass(frozen=True)
class Probability(Cell):
    """A cell with a p-value, shown with two digits in every column."""

    value: float
    marks: tuple[str, ...] = ()

    def text(self, decimals: int | None) -> str:
        """The p-value with two digits; values below 0.0001 only as such."""
        return "< 0.0001" if self.value < 1e-4 else f"{self.value:.2g}"

    def values(self) -> tuple[float, None]:
        return self.value, None


@final
@dataclass(frozen=True)
class Nothing(Cell):
    """An empty cell, with the reason if a word or two can name it."""

    why: str = ""
    marks: tuple[str, ...] = ()

    def text(self, decimals: int | None) -> str:
        """The reason, or a dash."""
        return self.why or "–"

    def values(self) -> tuple[None, None]:
        return None, None


@dataclass(frozen=True)
class Column:
    """A named column of a table.

    Args:
        title: title with the unit.
        spread: kind of the numbers' spread, as the head of the spread's own column in CSV.
        number: whether the column is set flush right.
    """

    title: str
    spread: str | None = None
    number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows under named columns, and notes that marks refer to.

    Args:
        title: title of the table.
        columns: heads of the columns.
        rows: rows with one cell for each column.
        notes: notes by their marks, which are letters.
        remarks: sentences on the whole table.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    def decimals(self) -> list[int | None]:
        """Number of decimals of each column's numbers; None for significant digits."""
        return [_decimals([row[place] for row in self.rows]) for place in range(len(self.columns))]

    def texts(self) -> list[list[str]]:
        """The text of each cell, row by row, without marks."""
        decimals = self.decimals()
        return [
            [cell.text(number) for cell, number in zip(row, decimals, strict=True)]
            for row in self.rows
        ]


class Notes:
    """Notes and their letters; equal notes share a letter."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, note: str) -> str:
        """The letter of a note: a, b, ..., z, aa, ab, ..."""
        if note not in self._letters:
            self._letters[note] = _letters(len(self._letters))
        return self._letters[note]

    def by_letter(self) -> dict[str, str]:
        """The notes by their letters, in order."""
        return {letter: note for note, letter in self._letters.items()}


def write_text_table(table: Table) -> str:
    """Aligned columns of plain text that fit the terminal, or 80 columns where there is none.

    If they do not fit, first heads and words are folded, then the columns are divided among several
    tables, each of which begins with the first column.
    """
    room = shutil.get_terminal_size().columns
    shown = [
        [f"{text}{_marked(cell)}" for text, cell in zip(texts, row, strict=True)]
        for texts, row in zip(table.texts(), table.rows, strict=True)
    ]
    columns = [_TextColumn.of(*column) for column in zip(table.columns, *shown, strict=True)]
    if _together(columns) > room:
        columns = [column.folded(room) for column in columns]
    lines = [table.title, ""] if table.title else []
    for number, part in enumerate(_parts(columns, room)):
        lines += [""] if number else []
        lines += _text_lines(part)
    said = [line for words in _said(table) for line in textwrap.wrap(words, room, **_WHOLE_WORDS)]
    return "\n".join([*lines, *_after("", said)]) + "\n"


_WHOLE_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True)
class _TextColumn:
    """The lines of each cell of a column, its head first."""

    cells: list[list[str]]
    number: bool

    @classmethod
    def of(cls, column: Column, *texts: str) -> "_TextColumn":
        return cls([[column.title], *([text] for text in texts)], column.number)

    @property
    def width(self) -> int:
        return max(len(line) for cell in self.cells for line in cell)

    def folded(self, room: int) -> "_TextColumn":
        """With the head as narrow as the cells allow, and words of at most two fifths of a line."""
        (head,), *rows = self.cells
        longest = max((len(text) for (text,) in rows), default=0)
        most = longest if self.number else min(longest, room * 2 // 5)
        narrow = max([most, 1, *map(len, head.split())])
        return _TextColumn(
            [
                textwrap.wrap(head, narrow),
                *(textwrap.wrap(text, narrow, break_on_hyphens=False) or [""] for (text,) in rows),
            ],
            self.number,
        )


def _together(columns: Sequence[_TextColumn]) -> int:
    return sum(column.width + 2 for column in columns) - 2


def _parts(columns: list[_TextColumn], room: int) -> list[list[_TextColumn]]:
    parts = [columns[:1]]
    for column in columns[1:]:
        if len(parts[-1]) > 1 and _together([*parts[-1], column]) > room:
            parts.append(columns[:1])
        parts[-1] = [*parts[-1], column]
    return parts


def _text_lines(columns: list[_TextColumn]) -> list[str]:
    lines = []
    for place, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            texts = [
                part.rjust(column.width) if column.number else part.ljust(column.width)
                for part, column in zip(parts, columns, strict=True)
            ]
            lines.append("  ".join(texts).rstrip())
        if not place:
            lines.append("  ".join("-" * column.width for column in columns))
    return lines


def write_markdown(table: Table) -> str:
    """A table of GitHub's Markdown."""
    heads = [_markdown(column.title) for column in table.columns]
    rule = ["---:" if column.number else ":---" for column in table.columns]
    rows = [
        [f"{_markdown(text)}{_superscript(cell)}" for text, cell in zip(texts, row, strict=True)]
        for texts, row in zip(table.texts(), table.rows, strict=True)
    ]
    lines = [f"**{_markdown(table.title)}**", ""] if table.title else []
    lines += [f"| {' | '.join(row)} |" for row in [heads, rule, *rows]]
    for note in _said(table):
        lines += ["", _markdown(note)]
    return "\n".join(lines) + "\n"


def write_csv(table: Table) -> str:
    """Comma-separated values with every digit; spreads and notes have columns of their own."""
    heads: list[str] = []
    for column in table.columns:
        heads += [column.title, *([f"{column.title}: {column.spread}"] if column.spread else [])]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*heads, "notes"] if table.notes else heads)
    for row in table.rows:
        fields: list[Any] = []
        for column, cell in zip(table.columns, row, strict=True):
            value, spread = cell.values()
            fields += [value, *([spread] if column.spread else [])]
        marks = dict.fromkeys(mark for cell in row for mark in cell.marks)
        notes = "; ".join(table.notes[mark] for mark in marks)
        writer.writerow([*fields, notes] if table.notes else fields)
    return out.getvalue()


def write_latex(table: Table) -> str:
    """A booktabs tabular that is shrunk to the width of the text if it is wider, and its notes.

    The first line, a comment, says which packages it needs.
    """
    rows = [
        [f"{_latex(text)}{_raised(cell)}" for text, cell in zip(texts, row, strict=True)]
        for texts, row in zip(table.texts(), table.rows, strict=True)
    ]
    lines = ["% needs \\usepackage{booktabs,adjustbox}"]
    lines += [f"% {line}" for line in [table.title.replace("\n", " ")] if line]
    lines.append("\\begin{adjustbox}{max width=\\linewidth}")
    lines.append(
        f"\\begin{{tabular}}{{{''.join('r' if c.number else 'l' for c in table.columns)}}}"
    )
    lines += ["\\toprule", _latex_row([_latex(column.title) for column in table.columns])]
    lines += [
        "\\midrule",
        *map(_latex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{adjustbox}",
    ]
    for note in _said(table):
        lines.append(f"\\\\ {{\\footnotesize {_latex(note)}}}")
    return "\n".join(lines) + "\n"


def write_html(table: Table) -> str:
    """A `table` element with its title as caption, and the notes after it."""
    rows = [
        [
            (column, text, cell, cell.link if isinstance(cell, Words) else None)
            for column, text, cell in zip(table.columns, texts, row, strict=True)
        ]
        for texts, row in zip(table.texts(), table.rows, strict=True)
    ]
    macros: Any = environment().get_template("table.html").module
    return str(macros.table(table, rows, _said(table))).strip() + "\n"


@cache
def environment() -> Environment:
    """The environment of HTML templates; values are escaped unless they are `Markup`."""
    made = Environment(
        loader=PackageLoader("platform_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["indented"] = lambda values: json.dumps(values, indent=1, ensure_ascii=False)
    return made


def write_json_table(table: Table) -> str:
    """The table as JSON: values, spreads and marks of each row by column."""
    rows = []
    for row in table.rows:
        fields = {}
        for column, cell in zip(table.columns, row, strict=True):
            value, spread = cell.values()
            extra = {"spread": spread, "marks": list(cell.marks)}
            fields[column.title] = {
                "value": _finite(value),
                **{name: given for name, given in extra.items() if given},
            }
        rows.append(fields)
    whole = {
        "title": table.title,
        "spreads": {c.title: c.spread for c in table.columns if c.spread},
        "rows": rows,
        "notes": dict(table.notes),
        "remarks": list(table.remarks),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "text": write_text_table,
    "markdown": write_markdown,
    "csv": write_csv,
    "latex": write_latex,
    "html": write_html,
    "json": write_json_table,
}
"""Writer of tables for each name that `--format` takes."""


def write_tables(tables: Sequence[Table], form: str) -> str:
    """Several tables with empty lines between them; as JSON, one list."""
    written = [FORMATS[form](table) for table in tables]
    if FORMATS[form] is write_json_table:
        return json.dumps(list(map(json.loads, written)), indent=1, ensure_ascii=False) + "\n"
    return "\n".join(written)


def _decimals(cells: Sequence[Cell]) -> int | None:
    """Decimals for two digits of the median spread above 0, else for four of the largest number."""
    pairs = [cell.values() for cell in cells if isinstance(cell, Number)]
    spreads = [spread for _, spread in pairs if spread and math.isfinite(spread)]
    if spreads:
        middle = sorted(spreads)[len(spreads) // 2]
        return min(MAX_DECIMALS, max(0, 1 - math.floor(math.log10(middle))))
    sizes = [abs(value) for value, _ in pairs if value and math.isfinite(value)]
    if not sizes:
        return None
    largest = math.floor(math.log10(max(sizes)))
    return min(MAX_DECIMALS, max(0, SIGNIFICANT - 1 - largest)) if min(sizes) > 1e-3 else None


def _letters(number: int) -> str:
    letter = chr(ord("a") + number % 26)
    return letter if number < 26 else _letters(number // 26 - 1) + letter


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _said(table: Table) -> list[str]:
    return [*(f"[{mark}] {note}" for mark, note in table.notes.items()), *table.remarks]


def _after(line: str, lines: Sequence[str]) -> list[str]:
    return [line, *lines] if lines else []


def _marked(cell: Cell) -> str:
    return f" [{','.join(cell.marks)}]" if cell.marks else ""


def _superscript(cell: Cell) -> str:
    return f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""


def _raised(cell: Cell) -> str:
    return f"\\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else ""


MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|~"} | {"\n": " "})

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
        "±": "$\\pm$",
        "–": "--",
        "−": "$-$",
        "Δ": "$\\Delta$",
        "\n": " ",
    }
)


def _markdown(text: str) -> str:
    return text.translate(MARKDOWN)


def _latex(text: str) -> str:
    return text.translate(LATEX)


def _latex_row(cells: Sequence[str]) -> str:
    # A row that begins with a bracket would be the argument of the \\ before it.
    first = f"{{}}{cells[0]}" if cells[0].startswith("[") else cells[0]
    return " & ".join([first, *cells[1:]]) + " \\\\"
