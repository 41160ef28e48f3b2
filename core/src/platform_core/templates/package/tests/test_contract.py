"""The part keeps the laws of its kind."""

from platform_core.testing import ContractTests


class TestNewPart(ContractTests):
    """All of them; `platform check new-part` prints the same."""

    plugin = "new-part"
