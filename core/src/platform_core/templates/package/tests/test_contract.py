"""The part keeps the laws of its kind."""

from platform_core.testing import ContractTests


class TestNewPart(ContractTests):
    """All laws of the part, which `platform check new-part` tests too."""

    plugin = "new-part"
