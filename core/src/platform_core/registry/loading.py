"""Finding and loading plugins, so that a plugin that fails does not stop the others.

A plugin comes from the entry-point group `platform_core.plugins`, or is a file or module named by
PLATFORM_PLUGINS, which `-p` sets. A plugin that raises, exits, misspells a hook or was written for
another hook API is kept as broken, with its traceback. Two distributions that claim one plugin name
are a conflict, and neither is loaded. pluggy's own loader would stop at the first broken plugin and
silently skip the second of two plugins with one name.
"""

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pluggy

from platform_core import hookspecs
from platform_core.component import KINDS, Component
from platform_core.errors import UsageError, reason
from platform_core.hookspecs import HOOK_API, HOOKS, METRICS_HOOK, PROJECT
from platform_core.registry.parts import NAMED, Plugin, Plugins

if TYPE_CHECKING:
    from platform_core.record.cards import Metric

GROUP = "platform_core.plugins"
PLUGINS = "PLATFORM_PLUGINS"
DISABLED = "PLATFORM_DISABLE_PLUGINS"
STRICT = "PLATFORM_STRICT_PLUGINS"


def load_plugins(environ: Mapping[str, str] = os.environ) -> Plugins:
    """All plugins; print a one-line warning on standard error for each that is left out.

    Raises:
        UsageError: as `find_plugins`; or one that `-p` names is broken or in conflict, or plugins
            are to be strict and any is.
    """
    plugins = installed() if environ is os.environ else find_plugins(environ)
    require_strict(plugins, environ)
    for plugin in plugins.plugins:
        if plugin.distribution in NAMED and plugin.status in ("broken", "conflict"):
            raise UsageError(
                f"plugin {plugin.value}, which -p names, is {plugin.status}: {plugin.reason}; "
                "`platform plugins -v` shows where, with the same -p"
            )
    for problem in plugins.problems():
        print(f"warning: {problem}; see platform plugins -v", file=sys.stderr)
    return plugins


def installed() -> Plugins:
    """All plugins, cached for each setting of the PLATFORM_ variables and of `sys.path`."""
    settings = sorted(pair for pair in os.environ.items() if pair[0].startswith("PLATFORM_"))
    return _found(tuple(settings), tuple(sys.path))


@lru_cache(maxsize=8)
def _found(settings: tuple[tuple[str, str], ...], path: tuple[str, ...]) -> Plugins:
    return find_plugins(dict(settings))


def require_strict(plugins: Plugins, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse broken and conflicting plugins if `--strict-plugins` asks for it.

    Raises:
        UsageError: a plugin is broken or in conflict, or several provide a part of one name.
    """
    problems = plugins.problems() + plugins.clashes()
    if problems and environ.get(STRICT, "").lower() not in ("", "0", "false"):
        raise UsageError("; ".join(problems))


def find_plugins(environ: Mapping[str, str] = os.environ) -> Plugins:
    """All plugins, including broken, conflicting and disabled plugins.

    Raises:
        UsageError: a file of PLATFORM_PLUGINS does not exist.
    """
    sources = [*_installed(), *_named(_listed(environ, PLUGINS))]
    disabled = _listed(environ, DISABLED)
    claims = Counter(s.found.name for s in sources if not s.is_disabled(disabled))
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = []
    for source in sources:
        if source.is_disabled(disabled):
            plugins.append(replace(source.found, status="disabled", reason="it is disabled"))
        elif claims[source.found.name] > 1:
            plugins.append(_conflict(source, sources, disabled))
        else:
            plugins.append(_load(manager, source))
    return Plugins(plugins)


@dataclass(frozen=True)
class Source:
    """A plugin that is not loaded yet."""

    found: Plugin
    load: Callable[[], object]

    def is_disabled(self, disabled: list[str]) -> bool:
        """Whether the plugin's name or its distribution's is among the disabled names."""
        return any(self.found.goes_by(name) for name in disabled)


def _installed() -> list[Source]:
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name)
    return [
        Source(
            Plugin(
                point.name,
                point.dist.name if point.dist else "unknown",
                point.dist.version if point.dist else "",
                point.value,
            ),
            point.load,
        )
        for point in points
    ]


def _named(names: list[str]) -> Iterator[Source]:
    for name in dict.fromkeys(names):
        if name.endswith(".py"):
            path = Path(name).resolve()
            if not path.is_file():
                raise UsageError(f"plugin file {name} does not exist")
            yield Source(Plugin(path.stem, "file", "", str(path)), partial(_run_file, path))
        else:
            yield Source(Plugin(name, "module", "", name), partial(importlib.import_module, name))


def _run_file(path: Path) -> object:
    """Import a file as a module, which targets that begin with its `__name__` then find."""
    name = re.sub(r"\W", "_", path.stem)
    present = importlib.util.find_spec(name)
    if name in sys.modules and present and present.origin == str(path):
        return sys.modules[name]
    if present and present.origin != str(path):
        raise ImportError(f"a module called {name} exists already; rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load(manager: pluggy.PluginManager, source: Source) -> Plugin:
    name = source.found.name
    try:
        plugin = source.load()
        written_for = getattr(plugin, "PLATFORM_HOOK_API", HOOK_API)
        if written_for != HOOK_API:
            raise ValueError(f"written for hook API {written_for}; this platform has {HOOK_API}")
        manager.register(plugin, name=name)
        manager.check_pending()
        hooks = tuple(hook for hook in HOOKS.values() if _implementations(manager, hook, name))
        if not hooks:
            raise ValueError("implements no hook; are its functions marked @hookimpl?")
        return replace(
            source.found,
            hooks=hooks,
            components=tuple(_collect(manager, name)),
            metrics=_metrics(manager, name) if METRICS_HOOK in hooks else (),
        )
    except (Exception, SystemExit) as error:  # third-party code may raise anything
        if manager.has_plugin(name):
            manager.unregister(name=name)
        return replace(
            source.found,
            status="broken",
            reason=reason(error),
            traceback="".join(traceback.format_exception(error)),
        )


def _collect(manager: pluggy.PluginManager, name: str) -> Iterator[tuple[str, Component]]:
    """Yield (kind, component) of one plugin. Its functions are called directly, not through the
    hook of all plugins, so that only this plugin is broken if they raise.
    """
    for kind in KINDS:
        hook = HOOKS[kind]
        seen: set[str] = set()
        for function in _implementations(manager, hook, name):
            for component in function():
                if not isinstance(component, Component):
                    raise TypeError(f"{hook} returned {component!r}, which is not a Component")
                if component.name in seen:
                    raise ValueError(f"{hook} returned {component.name} twice")
                if component.defaults and kind != "process":
                    raise ValueError(f"{kind} {component.name} has defaults; only processes may")
                seen.add(component.name)
                yield kind, component


def _metrics(manager: pluggy.PluginManager, name: str) -> tuple["Metric", ...]:
    """The metrics of one plugin."""
    from platform_core.record.cards import Metric

    found: dict[str, Metric] = {}
    for function in _implementations(manager, METRICS_HOOK, name):
        for metric in function():
            if not isinstance(metric, Metric):
                raise TypeError(f"{METRICS_HOOK} returned {metric!r}, which is not a Metric")
            if metric.name in found:
                raise ValueError(f"{METRICS_HOOK} returned {metric.name} twice")
            found[metric.name] = metric
    return tuple(found.values())


def _implementations(
    manager: pluggy.PluginManager, hook: str, name: str
) -> list[Callable[[], Iterable[object]]]:
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    found = [impl for impl in caller.get_hookimpls() if impl.plugin_name == name]
    return [cast("Callable[[], Iterable[object]]", impl.function) for impl in found]


def _conflict(source: Source, sources: list[Source], disabled: list[str]) -> Plugin:
    name = source.found.name
    providers = [
        s.found.provider for s in sources if s.found.name == name and not s.is_disabled(disabled)
    ]
    other = next((p for p in sources if p.found.name == name and p is not source), source)
    return replace(
        source.found,
        status="conflict",
        reason=f"plugin name {name} is claimed by {' and '.join(sorted(providers))}; "
        f"disable one, for example -p no:{other.found.distribution}",
    )


def _listed(environ: Mapping[str, str], variable: str) -> list[str]:
    return [name.strip() for name in environ.get(variable, "").split(",") if name.strip()]
