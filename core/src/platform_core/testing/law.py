"""Laws: statements that must hold for a part, each with its test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_core.testing.subject import Subject

Figures = str | None
"""Figures of a test that a part passed, as text for the user; None if there are none."""

Test = Callable[["Subject"], Figures]


class LawBroken(AssertionError):  # noqa: N818  # a verdict
    """A part breaks a law; the message has the figures."""


class Inapplicable(Exception):  # noqa: N818  # no error at all
    """A law does not apply to a part; the message says why."""


class Unclaimed(Inapplicable):
    """A part breaks a law that it does not claim to keep; the message says why, with the figures.

    A part names such laws in its attribute `unclaimed`: id of a law of its role -> reason.
    """


@dataclass(frozen=True)
class Law:
    """A law: its statement, its test, and the parts that it applies to.

    Args:
        id: the law's name in reports, in kebab-case.
        says: the statement that must hold, in one sentence.
        test: raises `LawBroken` or `Inapplicable`; returns figures.
        role: role of the parts that the law is about; None for all parts.
        needs: base class of the objects of the parts that the law applies to.
        heavy: whether the test takes more than a moment.
        against: returns why the law does not apply to a part; empty if it applies.
        silent: whether the law is left out of reports on parts that it does not apply to.
    """

    id: str
    says: str
    test: Test
    role: str | None
    needs: type = object
    heavy: bool = False
    against: "Callable[[Subject], str] | None" = None
    silent: bool = False

    def reason_against(self, subject: "Subject") -> str:
        """Why the law does not apply to a part, as far as known before the test; empty if it may
        apply.
        """
        if self.against is not None and (reason := self.against(subject)):
            return reason
        if self.needs is object or issubclass(subject.kind, self.needs):
            return ""
        return f"it is not a {self.needs.__name__}"


class Laws:
    """The laws of one role, in the order of their definition."""

    def __init__(self, role: str | None) -> None:
        self.role = role
        self._laws: list[Law] = []

    def __iter__(self) -> Iterator[Law]:
        return iter(self._laws)

    def law(
        self,
        *,
        needs: type = object,
        heavy: bool = False,
        against: "Callable[[Subject], str] | None" = None,
        silent: bool = False,
    ) -> Callable[[Test], Test]:
        """Decorate a function as a law. The function's name becomes the law's id, and the first
        paragraph of its docstring the law's statement.
        """

        def add(test: Test) -> Test:
            name, document = test.__name__.strip("_").replace("_", "-"), test.__doc__ or ""
            says = " ".join(document.split("\n\n")[0].split())
            self._laws.append(Law(name, says, test, self.role, needs, heavy, against, silent))
            return test

        return add


def require(holds: bool, figures: str) -> None:
    """Raise LawBroken with the figures unless `holds` is true."""
    if not holds:
        raise LawBroken(figures)
