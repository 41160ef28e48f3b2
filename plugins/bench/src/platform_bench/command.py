"""`platform bench`: cost of training and sampling in time and memory, measured side by side."""

import json
from collections.abc import Sequence

from platform_core.cli.parser import Parser, positive


def main(argv: Sequence[str]) -> int:
    """Print a suite's table, or the figures of one case as JSON."""
    import platform_bench as bench

    parser = Parser(prog="platform bench", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--what", choices=bench.SUITES, default=bench.SUITES[0], help="suite of cases to measure"
    )
    parser.add_argument("--states", type=positive, default=50257, help="size of the vocabulary")
    parser.add_argument("--batch", type=positive, default=4, help="sequences at once")
    parser.add_argument("--length", type=positive, default=256, help="tokens in a sequence")
    parser.add_argument(
        "--network", choices=["tiny", "small", "medium"], default="tiny", help="preset of dit"
    )
    parser.add_argument("--width", type=positive, help="hidden size of the network (the preset's)")
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="measure the paths with these words, as duo"
    )
    parser.add_argument("--one", metavar="JSON", help="measure only this case, in this process")
    asked = parser.parse_args(argv)
    if asked.one is not None:
        print(json.dumps(bench.measure(bench.Case.from_json(asked.one))))
        return 0
    size = bench.Size(asked.states, asked.batch, asked.length, asked.network, asked.width)
    for line in bench.table(asked.what, size, asked.only):
        print(line, flush=True)
    return 0
