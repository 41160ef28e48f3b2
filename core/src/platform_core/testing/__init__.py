"""The laws that every part must keep, for authors of plugins and for `platform check`.

The whole test file of a plugin is

    from platform_core.testing import ContractTests

    class TestMine(ContractTests):
        plugin = "my-plugin"

A law is a statement about a part, with a function that raises `LawBroken` with figures (`law`). The
modules named after roles contain the laws of each role, `structure` the laws of all parts, and
`services` and `metrics` those of services and metrics. `subject` describes the part under test,
`partners` finds the parts to test it with, and `toy` has text distributions small enough to
enumerate. `TrackerContract` tests a tracker as `ContractTests` tests a part.
"""

from platform_core.testing.contract import ContractTests
from platform_core.testing.law import Inapplicable, Law, LawBroken
from platform_core.testing.tracker import TrackerContract

__all__ = ["ContractTests", "Inapplicable", "Law", "LawBroken", "TrackerContract"]
