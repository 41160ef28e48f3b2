"""`platform new-plugin NAME`: make an installable package with one working part, to be changed."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from platform_core.cli.parser import Parser
from platform_core.component import KINDS
from platform_core.registry.loading import load_plugins
from platform_core.templates.scaffold import distribution, require_free, use, write_package


def main(argv: Sequence[str]) -> int:
    """Writes the package and prints the commands that install, check and use it."""
    asked = _arguments().parse_args(list(argv))
    require_free(asked.name, asked.kind, load_plugins())
    folder = asked.output or Path(distribution(asked.name))
    write_package(asked.name, asked.kind, folder.expanduser())
    module = f"platform_{asked.name.replace('-', '_')}"
    print(
        f"{folder}: the {asked.kind} {asked.name}, in src/{module}/{asked.kind}.py\n"
        f"  {shlex.join(['pip', 'install', '-e', str(folder)])}\n"
        f"  platform check {asked.name}\n"
        f"  {use(asked.name, asked.kind)}"
    )
    return 0


def _arguments() -> Parser:
    parser = Parser(prog="platform new-plugin", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "name", metavar="NAME", help="name of the part and of the plugin, such as my-noise"
    )
    parser.add_argument(
        "--kind", choices=KINDS, default="process", help="kind of the part (process)"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="folder to make (./platform-NAME)"
    )
    return parser
