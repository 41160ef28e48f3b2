"""The part keeps the laws of its kind, and the contract of every tracker."""

from platform_core.record.directory import RunDirectory
from platform_core.templates.tracker.tracker import NewPart, rows
from platform_core.testing import ContractTests, TrackerContract


class TestNewPart(ContractTests):
    """All laws of the part, which `platform check new-part` tests too."""

    plugin = "new-part"


class TestTracker(TrackerContract):
    """The tracker keeps all that is logged, also in a resumed run."""

    tracker = NewPart

    def points(self, directory: RunDirectory, identity: str | None) -> list[tuple[str, int, float]]:
        """The numbers in the table, as (name, step, value)."""
        found = rows(directory.path / "new-part" / "metrics.csv")
        return [(name, int(step), float(value)) for step, name, value in found]
