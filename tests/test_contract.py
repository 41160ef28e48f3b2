"""Every registered part keeps the laws of its role."""

import pytest

from platform_core.testing import ContractTests


class TestQuickLaws(ContractTests):
    heavy = False


@pytest.mark.slow
class TestHeavyLaws(ContractTests):
    heavy = True
