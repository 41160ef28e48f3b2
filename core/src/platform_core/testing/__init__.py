"""Laws that every part must keep, for authors of plugins and for `platform check`.

    from platform_core.testing import ContractTests

    class TestMine(ContractTests):
        plugin = "my-plugin"

is the whole test file of a plugin. A law is a sentence and a function that raises `LawBroken` with
figures (`law`); the modules named after roles hold them, `structure` those of every part. `subject`
says what is examined, `partners` which other parts it is examined with, and `toy` has laws of text
small enough to enumerate. `TrackerContract` does for a tracker what `ContractTests` does for parts.
"""

from platform_core.testing.contract import ContractTests
from platform_core.testing.law import Inapplicable, Law, LawBroken
from platform_core.testing.tracker import TrackerContract

__all__ = ["ContractTests", "Inapplicable", "Law", "LawBroken", "TrackerContract"]
