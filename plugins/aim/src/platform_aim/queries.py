"""Which of Aim's queries the dashboard passes on: conditions, never programs.

Aim evaluates a query (`run.process.name == "duo" and run.seed == 1`) as Python, once for each run,
in a sandbox that people have left before (CVE-2024-2195). What its interface sends, and what a
person writes to find runs, needs little of Python; the rest is refused before Aim sees it.
"""

import ast

NAMES = {"run", "metric", "images", "texts", "figures", "audios", "distributions"}
"""What a query can speak of."""

FUNCTIONS = {"datetime", "timedelta", "abs", "len", "max", "min", "round"}
"""What a query can call by its name; Aim's interface writes `datetime(2026, 1, 31)`."""

METHODS = {"startswith", "endswith", "lower", "upper", "strip", "lstrip", "rstrip", "casefold"}
"""Methods of strings that a query can call."""

INTERNAL = {
    "db",
    "meta_run_attrs_tree",
    "meta_run_tree",
    "proxy_cache",
    "run",
    "structured_run_cls",
}
"""Attributes that lead from a run or a curve into Aim itself, and not to what was tracked."""

PASSED = (
    # Conditions.
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Compare),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot),
    # Values, and arithmetic of a bounded cost.
    *(ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    # Looked at more closely below.
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword, ast.Load),
)


class QueryError(ValueError):
    """A query that is not passed on.

    Args:
        reason: in one line.
        line: where, counted from 1.
        offset: the column of the query as Aim reads it, in brackets, counted from 1.
    """

    def __init__(self, reason: str, line: int = 1, offset: int = 1) -> None:
        super().__init__(reason)
        self.line, self.offset = line, offset


def check(query: str) -> None:
    """Passes a query, or says why not. An empty one asks for everything.

    Raises:
        QueryError: it is no Python, or is more than a condition.
    """
    if not query.strip():
        return
    try:
        # As Aim reads it, which puts brackets around it: a query may have several lines.
        tree = ast.parse(f"({query.strip()})", mode="eval")
    except SyntaxError as error:
        where = error.lineno or 1, error.offset or 1
        raise QueryError(f"syntax error: {error.msg}", *where) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise QueryError("this query cannot be read: it is too deep or no text") from error
    if tree.body.col_offset == 0:
        raise QueryError("brackets that do not match")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        reason = _refusal(node, called=id(node) in called)
        if reason:
            line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
            raise QueryError(f"{reason}; a query is a condition on runs", line, column + 1)


def _refusal(node: ast.AST, *, called: bool) -> str | None:
    """Why a part of a query is refused, apart from its own parts; None where it is not."""
    match node:
        case ast.Name(id=name) if name not in (FUNCTIONS if called else NAMES):
            known = sorted(FUNCTIONS if called else NAMES)
            return f"{name} is not known here, only {', '.join(known)}"
        case ast.Attribute(attr=name) if called and name not in METHODS:
            return f".{name}() cannot be called, only {', '.join(sorted(METHODS))}"
        case ast.Attribute(attr=name) if name.startswith("_") or name in INTERNAL:
            return f".{name} is internal to Aim"
        case ast.Call(func=function) if not isinstance(function, ast.Name | ast.Attribute):
            return "only a function or a method of a string can be called"
        case ast.Call(func=ast.Attribute(), keywords=[_, *_]):
            return "methods take no named arguments"
        case ast.keyword(arg=None):
            return "** is not passed"
        case ast.Dict(keys=keys) if None in keys:
            return "** is not passed"
    return None if isinstance(node, PASSED) else f"{type(node).__name__} is not passed"
