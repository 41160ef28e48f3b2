"""`platform plugins`: list installed parts, their plugins, and which parts go together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from platform_core.cli.parser import Parser
from platform_core.component import KINDS, ROLES
from platform_core.errors import UsageError
from platform_core.registry.loading import find_plugins, require_strict
from platform_core.registry.parts import Plugins

PAIRED = ("process", "parameterization")
"""Roles that parts of other roles have requirements on; their parts are the rows of a matrix."""


def main(argv: Sequence[str]) -> int:
    """Prints the listing; only the matrix imports parts."""
    asked = _arguments().parse_args(list(argv))
    plugins = find_plugins()
    if asked.matrix:
        show_matrix(plugins, as_json=asked.json)
    elif asked.json:
        print(json.dumps(listing(plugins), indent=1))
    else:
        show_parts(plugins)
        show_problems(plugins, verbose=asked.verbose)
    require_strict(plugins)
    return 0


def _arguments() -> Parser:
    parser = Parser(prog="platform plugins", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also show each plugin's hooks and tracebacks"
    )
    parser.add_argument(
        "--matrix", action="store_true", help="show which parts go together (imports them)"
    )
    parser.add_argument("--json", action="store_true", help="print the listing as JSON")
    return parser


def listing(plugins: Plugins) -> dict[str, Any]:
    """Parts, metrics and plugins as plain values for JSON."""
    return {
        "components": [
            {
                "role": part.role,
                "name": part.component.name,
                "target": part.component.target,
                "summary": part.component.summary,
                "defaults": dict(part.component.defaults),
                "plugin": part.plugin.name,
                "distribution": part.plugin.distribution,
                "version": part.plugin.version,
            }
            for part in plugins.parts(KINDS)
        ],
        "metrics": [
            {"name": metric.name, "title": metric.title, "plugin": plugin.name}
            for plugin in plugins.plugins
            for metric in plugin.metrics
        ],
        "plugins": [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "value": plugin.value,
                "status": plugin.status,
                "reason": plugin.reason,
                "hooks": list(plugin.hooks),
            }
            for plugin in plugins.plugins
        ],
    }


def show_parts(plugins: Plugins) -> None:
    """Prints a table with a line for each part and each metric."""
    rows = [
        (part.role, part.component.name, part.plugin.provider, part.component.summary)
        for part in plugins.parts(KINDS)
    ]
    rows += [
        ("metric", metric.name, plugin.provider, metric.title)
        for plugin in plugins.plugins
        for metric in plugin.metrics
    ]
    print(table([("kind", "name", "provided by", "summary"), *rows]))


def show_problems(plugins: Plugins, *, verbose: bool) -> None:
    """Prints conflicts and the plugins left out, with reasons; if verbose, hooks and tracebacks."""
    for clash in plugins.clashes():
        print(f"\nconflict: {clash}")
    for plugin in plugins.plugins:
        if plugin.status != "loaded":
            print(f"\n{plugin.status}: plugin {plugin.name} ({plugin.provider}): {plugin.reason}")
            if plugin.traceback and not verbose:
                print("platform plugins -v shows the traceback")
        elif verbose:
            print(f"\nplugin {plugin.name} ({plugin.provider}, {plugin.value})")
            print("\n".join(f"  {hook}" for hook in plugin.hooks))
        if plugin.traceback and verbose:
            print("\n".join(f"  {line}" for line in plugin.traceback.rstrip().splitlines()))


def show_matrix(plugins: Plugins, *, as_json: bool) -> None:
    """Prints, for each process and each parameterization, the parts that go with it."""
    from platform_core.composition.compatibility import matrix

    matrices = {role: matrix(plugins, role) for role in PAIRED}
    if as_json:
        print(json.dumps(matrices, indent=1))
        return
    print("\n\n".join(matrix_table(role, found) for role, found in matrices.items()))
    print("\nTwo parts of one row may still exclude each other: composition checks all pairs.")
    for line in missing(plugins, matrices):
        print(line)


def matrix_table(role: str, found: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """One role's matrix as a table: a row for each of its parts, a column for each other role."""
    others = [other for other in ROLES if other != role]
    rows = [
        (name, *(" ".join(row[other]) or "-" for other in others)) for name, row in found.items()
    ]
    return table([(role, *others), *rows])


def missing(
    plugins: Plugins, matrices: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]
) -> Iterable[str]:
    """Lines that say why parts that cannot be loaded are not in a matrix."""
    for role in PAIRED:
        for name in plugins.names(role):
            if name not in matrices[role]:
                try:
                    plugins.load(role, name)
                except UsageError as error:
                    yield f"left out: {error}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, in aligned columns two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
