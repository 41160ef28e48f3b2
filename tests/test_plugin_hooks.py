"""What the plugins of this repository bring is what core says of them."""

import inspect

import pytest

from platform_core import hookspecs
from platform_core.cli.eval import installed_evaluations, own_words
from platform_core.component import KINDS, SERVICES
from platform_core.hookspecs import SERVICE_HOOKS
from platform_core.registry.loading import find_plugins
from platform_core.registry.parts import (
    FIRST_PARTY,
    FIRST_PARTY_OPTIONS,
    Plugin,
    Plugins,
)


def found(plugins: Plugins, name: str) -> Plugin:
    (plugin,) = (plugin for plugin in plugins.plugins if plugin.name == name)
    return plugin


@pytest.mark.parametrize("kind", SERVICES)
def test_every_service_hook_is_documented_and_has_a_use_of_our_own(kind: str) -> None:
    document = inspect.getdoc(getattr(hookspecs, SERVICE_HOOKS[kind]))
    assert document is not None
    assert len(document) > 40
    plugins = find_plugins({})
    own = plugins.names(kind)
    assert own
    for name in own:
        assert callable(plugins.load(kind, name))


def test_what_our_plugins_bring_is_known_without_them() -> None:
    """Else a message could not say which of them to install."""
    found: dict[str, dict[str, str]] = {}
    for part in find_plugins({}).parts(KINDS):
        plugin = part.plugin.distribution.removeprefix("dlm-platform-")
        if plugin != "core" and part.role != "command":
            found.setdefault(part.role, {})[part.component.name] = plugin
    assert found == FIRST_PARTY
    own = {
        word.removeprefix("--"): FIRST_PARTY["evaluation"][name]
        for name, evaluation in installed_evaluations(find_plugins({})).items()
        if name in FIRST_PARTY["evaluation"]
        for word in own_words(evaluation)
    }
    assert own == FIRST_PARTY_OPTIONS["platform eval"]
