"""What a law is: a sentence that must hold of a part, and the test of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platform_core.testing.subject import Subject

Figures = str | None
"""What a law found where it holds, for a reader who wants to see it."""

Test = Callable[["Subject"], Figures]


class LawBroken(AssertionError):  # noqa: N818  # a verdict
    """A part breaks a law; the message has the figures."""


class Inapplicable(Exception):  # noqa: N818  # no error at all
    """A law does not apply to a part; the message says why."""


@dataclass(frozen=True)
class Law:
    """One law.

    Args:
        id: kebab-case, by which reports name it.
        says: one sentence: what must hold.
        test: raises `LawBroken` or `Inapplicable`; what it returns are figures.
        role: of the parts that it is about; None for all.
        needs: the class that a part must be of for the law to say anything.
        heavy: takes more than a moment.
        against: says of a part why the law does not apply to it; empty where it does.
    """

    id: str
    says: str
    test: Test
    role: str | None
    needs: type = object
    heavy: bool = False
    against: "Callable[[Subject], str] | None" = None

    def reason_against(self, subject: "Subject") -> str:
        """Why the law does not apply to a part, as far as that is known before it is tested; empty
        if it does.
        """
        if self.against is not None and (reason := self.against(subject)):
            return reason
        if self.needs is object or issubclass(subject.kind, self.needs):
            return ""
        return f"it is no {self.needs.__name__}"


class Laws:
    """The laws of one role, in the order in which a module writes them down."""

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
    ) -> Callable[[Test], Test]:
        """Makes a law of a function: its name is the id, the first line of its docstring what it
        says.
        """

        def add(test: Test) -> Test:
            name, document = test.__name__.strip("_").replace("_", "-"), test.__doc__ or ""
            says = " ".join(document.split("\n\n")[0].split())
            self._laws.append(Law(name, says, test, self.role, needs, heavy, against))
            return test

        return add


def require(holds: bool, figures: str) -> None:
    """Raises LawBroken with the figures, unless it holds."""
    if not holds:
        raise LawBroken(figures)
