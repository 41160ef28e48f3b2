"""The part keeps the laws of its kind, and the contract of every tracker."""

from platform_core.record.directory import RunDirectory
from platform_core.templates.tracker.tracker import NewPart, rows
from platform_core.testing import ContractTests, TrackerContract


class TestNewPart(ContractTests):
    """All of them; `platform check new-part` prints the same."""

    plugin = "new-part"


class TestTracker(TrackerContract):
    """What is told is kept, also over a resumed run."""

    tracker = NewPart

    def points(self, directory: RunDirectory, identity: str | None) -> list[tuple[str, int, float]]:
        """What the table has."""
        found = rows(directory.path / "new-part" / "metrics.csv")
        return [(name, int(step), float(value)) for step, name, value in found]
