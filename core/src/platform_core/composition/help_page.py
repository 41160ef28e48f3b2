"""The page that `platform VERB --help` prints: the options that it shows, first and at all."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HelpPage:
    """What the page of a verb shows.

    Args:
        first: option (or example) -> what it is for: the few that matter first, in order.
        reads: sections, or single options, that have an effect; None where all have.
    """

    first: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] | None = None

    def shows(self, key: str) -> bool:
        """Whether an option is shown, given its key: train.steps, seed, or the verb's own."""
        if self.reads is None:
            return True
        return key in self.reads or key.partition(".")[0] in self.reads

    def beginning(self) -> str | None:
        """The list of the options that matter first."""
        if not self.first:
            return None
        width = max(map(len, self.first))
        lines = [f"  {option:{width}}  {line}" for option, line in self.first.items()]
        return "\n".join(["most used:", *lines, "", "All options follow, by what they belong to."])


def hide(parser: Any, page: HelpPage, own: set[str]) -> None:
    """Leaves the options out of a parser's help that the page does not show."""
    for action in parser._actions:
        if action.dest not in own and action.dest != "help" and not page.shows(action.dest):
            action.help = argparse.SUPPRESS
    parser._action_groups = [
        group
        for group in parser._action_groups
        if any(action.help != argparse.SUPPRESS for action in group._group_actions)
    ]


_UNSAID = ("null", "NoneType", "")
_TYPES = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}


def worded(text: str) -> str:
    """The end of an option's help, `(type: int | null, default: null)`, in words."""
    found = re.search(r"\(((?:required|type: |default: ).*)\)$", text, re.DOTALL)
    if not found:
        return text
    said = []
    required, kind, default = re.fullmatch(
        r"(required)?(?:, )?(?:type: (.*?))?(?:(?:, )?default: (.*))?", found[1], re.DOTALL
    ).groups()  # type: ignore[union-attr]
    if required:
        said.append(required)
    # The words of a choice stand beside the option's name already.
    kinds = re.sub(r"Literal\[[^\]]*\]|Optional|Union|[\[\]]", "", kind or "")
    words = [_TYPES.get(each, each) for each in re.split(r" \| |, ", kinds) if each not in _UNSAID]
    if words:
        said.append(" or ".join(words))
    if default is not None and default not in ("null", "False"):
        said.append(f"default: {default}")
    return text[: found.start()] + (f"({', '.join(said)})" if said else "").strip()
