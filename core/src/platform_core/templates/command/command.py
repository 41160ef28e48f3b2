"""The verb: what `platform new-part RUN` does.

    words after the verb -> main(argv) -> exit code

A mistake of the user raises `UsageError` with one line; `platform` prints it and ends with 2.
"""

from collections import Counter
from collections.abc import Sequence

from platform_core.cli.parser import Parser


def main(argv: Sequence[str]) -> int:
    """Prints how many weights each part of a run's network has.

    Raises:
        UsageError: the words are wrong, or there is no such run.
    """
    parser = Parser(prog="platform new-part", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--depth", type=int, default=1, help="names are cut to so many words")
    asked = parser.parse_args(list(argv))

    # Not at the top: torch, which `--help` does not need.
    from platform_core.evaluation.trained import TrainedRun

    run = TrainedRun.open(asked.run)
    counts: Counter[str] = Counter()
    for name, weight in run.model.backbone.named_parameters():
        counts[".".join(name.split(".")[: asked.depth])] += weight.numel()
    for name, number in counts.most_common():
        print(f"{number:>12,}  {name}")
    print(f"{counts.total():>12,}  in all, at step {run.step}")
    return 0
