"""The verb `platform new-part RUN`: counts the weights of a run's network.

    words after the verb -> main(argv) -> exit code

A mistake of the user raises a one-line `UsageError`; `platform` prints it and ends with code 2.
"""

from collections import Counter
from collections.abc import Sequence

from platform_core.cli.parser import Parser


def main(argv: Sequence[str]) -> int:
    """Print how many weights each module of a run's network has.

    Raises:
        UsageError: an option is wrong, or the run does not exist.
    """
    parser = Parser(prog="platform new-part", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("--depth", type=int, default=1, help="levels of modules to list")
    asked = parser.parse_args(list(argv))

    # Imported here, because it imports torch, which `--help` does not need.
    from platform_core.evaluation.trained import TrainedRun

    run = TrainedRun.open(asked.run)
    counts: Counter[str] = Counter()
    for name, weight in run.model.backbone.named_parameters():
        counts[".".join(name.split(".")[: asked.depth])] += weight.numel()
    for name, number in counts.most_common():
        print(f"{number:>12,}  {name}")
    print(f"{counts.total():>12,}  in all, at step {run.step}")
    return 0
