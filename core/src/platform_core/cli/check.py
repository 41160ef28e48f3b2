"""`platform check`: test whether installed parts obey the laws of their roles, with figures."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from platform_core.cli.parser import Parser
from platform_core.component import KINDS
from platform_core.composition.words import split_options, underscored
from platform_core.errors import UsageError
from platform_core.registry.loading import load_plugins

if TYPE_CHECKING:
    from platform_core.testing.check import Case, Outcome, Verdict

    Judged = tuple[Case, Verdict]


def main(argv: Sequence[str]) -> int:
    """Prints a verdict on each part; returns 1 if a part breaks a law, else 0."""
    options, words = split_options(underscored(argv))
    asked = _arguments().parse_args(words)
    if not asked.names and not asked.all and asked.role is None:
        raise UsageError("name a plugin or a part, such as duo or process:duo, or give --all")
    plugins = load_plugins()
    # Imported here, because `testing.check` imports torch.
    from tqdm import tqdm

    from platform_core.testing.check import cases, named
    from platform_core.testing.given import given

    parts = [part for part in named(asked.names, plugins) if asked.role in (None, part.role)]
    if not parts:
        raise UsageError(f"{', '.join(asked.names)}: no {asked.role} among the parts")
    todo = list(cases(parts, plugins, given(options, parts, plugins)))
    judged: list[Judged] = []
    with tqdm(total=len(todo), unit="law", disable=not sys.stderr.isatty(), leave=False) as bar:
        for subject, own in groupby(todo, key=lambda case: case.subject):
            bar.set_description(str(subject))
            found = []
            for case in own:
                found.append((case, case.verdict()))
                bar.update()
            judged += found
            if not asked.json:
                with tqdm.external_write_mode():
                    print(verdict_on(found, verbose=asked.verbose), flush=True)
    if asked.json:
        print(json.dumps(as_plain(judged), indent=1))
    else:
        print(f"\n{total(judged)}")
    return int(any(verdict.outcome == "broken" for _, verdict in judged))


def _arguments() -> Parser:
    parser = Parser(
        prog="platform check",
        usage="platform check [NAME ...] [--all] [--role ROLE] [--ROLE.OPTION VALUE ...] [-v] "
        "[--json]",
        description=__doc__,
        epilog="--ROLE.OPTION VALUE, such as --process.block_size 1, gives an option to those of "
        "the named parts that have it, wherever a law makes the part. A law that a part does not "
        "claim to keep (its attribute `unclaimed`) is shown as not claimed, with the reason.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a plugin, a distribution, a part, or ROLE:PART; several may be named",
    )
    parser.add_argument("--all", action="store_true", help="check every installed part")
    parser.add_argument(
        "--role", choices=KINDS, help="check only parts of this role, or services of this kind"
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list every law with its statement and its figures",
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    return parser


def verdict_on(judged: Sequence["Judged"], *, verbose: bool) -> str:
    """The verdict on one part as text: counts, then broken and inapplicable laws, or all laws."""
    subject = judged[0][0].subject
    counts = count(judged)
    head = f"{subject}  ({subject.part.plugin.provider}): {counts}"
    lines = []
    for outcome in OUTCOMES:
        own = [(case.law, verdict.says) for case, verdict in judged if verdict.outcome == outcome]
        if verbose:
            for law, says in own:
                lines += [f"  {_WORDS[outcome]:<14} {law.id}: {law.says}"]
                lines += [f"  {'':<14} {says}"] if says else []
        elif outcome == "broken":
            for law, says in own:
                lines += [f"  BROKEN {law.id}: {law.says}", f"         {says}"]
        elif outcome == "unclaimed":
            lines += [f"  not claimed {law.id}: {says}" for law, says in own]
        elif outcome == "passed":
            holds = [case.law.id for case, verdict in judged if is_modest(case, verdict)]
            lines += [f"  not claimed, but holds: {', '.join(holds)}"] if holds else []
        elif outcome == "inapplicable":
            for says, same in _by_reason(own).items():
                lines += [f"  not applicable ({says}): {', '.join(same)}"]
    return "\n".join((head, *lines))


def is_modest(case: "Case", verdict: "Verdict") -> bool:
    """Whether a part keeps a law that it does not claim to keep."""
    return bool(case.unclaimed) and verdict.outcome == "passed"


def _by_reason(own: Iterable[tuple[Any, str]]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for law, says in own:
        found.setdefault(says, []).append(law.id)
    return found


OUTCOMES: Sequence["Outcome"] = ("passed", "broken", "unclaimed", "inapplicable")
_WORDS = {
    "passed": "passed",
    "broken": "BROKEN",
    "unclaimed": "not claimed",
    "inapplicable": "not applicable",
}


def count(judged: Sequence["Judged"]) -> str:
    """The number of laws with each outcome, and their total time in seconds, as text."""
    counts = Counter(verdict.outcome for _, verdict in judged)
    seconds = sum(verdict.seconds for _, verdict in judged)
    broken = f"{counts['broken']} BROKEN" if counts["broken"] else "0 broken"
    unclaimed = f"{counts['unclaimed']} not claimed, " if counts["unclaimed"] else ""
    return (
        f"{counts['passed']} passed, {broken}, {unclaimed}"
        f"{counts['inapplicable']} not applicable, {seconds:.1f} s"
    )


def total(judged: Sequence["Judged"]) -> str:
    """The last line of the output: the number of parts, and the counts over all of them."""
    parts = {(case.subject.role, case.subject.name) for case, _ in judged}
    return f"{len(parts)} {'part' if len(parts) == 1 else 'parts'}: {count(judged)}"


def as_plain(judged: Sequence["Judged"]) -> dict[str, Any]:
    """The verdicts and their counts by outcome, as plain values for JSON."""
    counts = Counter(verdict.outcome for _, verdict in judged)
    return {
        "counts": {outcome: counts.get(outcome, 0) for outcome in OUTCOMES},
        "verdicts": [
            {
                "role": case.subject.role,
                "name": case.subject.name,
                "form": case.subject.form,
                "plugin": case.subject.part.plugin.name,
                "law": case.law.id,
                "says": case.law.says,
                "outcome": verdict.outcome,
                "unclaimed": case.unclaimed,
                "figures": verdict.says,
                "seconds": round(verdict.seconds, 3),
            }
            for case, verdict in judged
        ],
    }
