"""Plugins: what is found, and that one which fails stops nobody else."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from platform_core import hookspecs
from platform_core.component import ROLES, SERVICES, Component
from platform_core.errors import UsageError
from platform_core.hookspecs import HOOK_API, HOOKS, ROLE_HOOKS, SERVICE_HOOKS
from platform_core.registry.loading import find_plugins, load_plugins
from platform_core.registry.parts import (
    Plugin,
    Plugins,
    resolve,
)

STUBS = Path(__file__).parent / "stub_parts.py"
PREAMBLE = """
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts distributions with an entry point each on the path, as pip would."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution: str, version: str, *, plugin: str, code: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(PREAMBLE + code)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[platform_core.plugins]\n{plugin} = {module}\n")

    return install


def sampler(name: str, target: str = "platform_core.sampler:Ancestral") -> str:
    return f"""
@hookimpl
def platform_samplers():
    return [Component({name!r}, {target!r})]
"""


def found(plugins: Plugins, name: str) -> Plugin:
    (plugin,) = (plugin for plugin in plugins.plugins if plugin.name == name)
    return plugin


@pytest.mark.parametrize("hook", ROLE_HOOKS.values())
def test_every_hook_is_documented_and_provides_parts_of_its_role(hook: str) -> None:
    role = next(role for role, name in HOOKS.items() if name == hook)
    document = inspect.getdoc(getattr(hookspecs, hook))
    assert document is not None
    base = document.partition("`")[2].partition("`")[0]
    assert isinstance(resolve(":".join(base.rsplit(".", 1))), type)
    plugins = find_plugins({"PLATFORM_PLUGINS": str(STUBS)})
    assert hook in found(plugins, "stub_parts").hooks
    own = [part for part in plugins.parts() if part.plugin.name == "stub_parts"]
    assert role in {part.role for part in own}


def test_there_is_one_hook_for_each_kind_and_no_other() -> None:
    specified = [name for name in vars(hookspecs) if name.startswith("platform_")]
    assert list(ROLE_HOOKS) == list(ROLES)
    assert list(SERVICE_HOOKS) == list(SERVICES)
    assert sorted(specified) == sorted(HOOKS.values())


def test_metrics_come_from_plugins() -> None:
    assert {"bits_per_character", "nats_per_token"} <= set(find_plugins({}).metrics())


def test_core_registers_its_parts_like_any_plugin() -> None:
    plugins = find_plugins({})
    part = plugins.get("process", "absorbing")
    assert part.plugin.name == "core"
    assert part.plugin.distribution == "dlm-platform-core"
    assert plugins.load("process", "absorbing").__name__ == "Absorbing"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "LogLinear", "target": "a.b:C"}, "not kebab-case"),
        ({"name": "log_linear", "target": "a.b:C"}, "not kebab-case"),
        ({"name": "x", "target": "a.b.C"}, "not MODULE:CLASS"),
        ({"name": "x", "target": "a.b:C", "defaults": {"smapler": "y"}}, "neither a role"),
        ({"name": "x", "target": "a.b:C", "defaults": {"sampler": 3}}, "must name a part"),
        ({"name": "x", "target": "a.b:C", "forms": {"states": "a.b:D"}}, "not OPTION VALUE"),
        ({"name": "x", "target": "a.b:C", "forms": {"states y": "a.b.D"}}, "not MODULE:CLASS"),
    ],
)
def test_a_component_of_another_form_is_refused(fields: Mapping[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Component(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        (
            f"PLATFORM_HOOK_API = {HOOK_API + 1}" + sampler("x"),
            f"written for hook API {HOOK_API + 1}",
        ),
        ("@hookimpl\ndef platform_smaplers(): return []", "unknown hook 'platform_smaplers'"),
        ("@hookimpl\ndef platform_samplers(registry): return []", "registry"),
        ("@hookimpl\ndef platform_samplers(): return ['x']", "'x', which is not a Component"),
        ("@hookimpl\ndef platform_samplers(): 1 / 0", "ZeroDivisionError"),
        (sampler("Bad_Name"), "not kebab-case"),
        ("def platform_samplers(): return []", "@hookimpl"),
        (
            "@hookimpl\ndef platform_samplers():\n"
            "    return [Component('x', 'a:B', defaults={'sampler.steps': 1})]",
            "only processes may",
        ),
    ],
)
def test_a_broken_plugin_is_shown_with_its_traceback_and_stops_nobody_else(
    install: Install, code: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme-broken", "1.0", plugin="acme", code=code)
    install("acme-sound", "2.0", plugin="sound", code=sampler("sound"))
    plugins = load_plugins({})
    broken = found(plugins, "acme")
    assert broken.status == "broken"
    assert reason in broken.reason.replace('"', "'")
    assert "Traceback" in broken.traceback
    assert broken.components == ()
    assert plugins.load("sampler", "sound").__name__ == "Ancestral"
    warning = capsys.readouterr().err
    assert warning.startswith("warning: plugin acme (acme-broken 1.0) was left out: ")
    assert warning.count("\n") == 1


def test_an_unknown_name_mentions_the_broken_plugin_that_may_provide_it(install: Install) -> None:
    install("acme-broken", "1.0", plugin="acme", code="import not_installed_anywhere")
    with pytest.raises(UsageError, match=r"plugin acme \(acme-broken 1.0\) is broken and may"):
        find_plugins({}).get("sampler", "acme")


def test_two_distributions_with_one_plugin_name_are_a_conflict_and_neither_is_loaded(
    install: Install,
) -> None:
    install("acme-one", "1.0", plugin="acme", code=sampler("one"))
    install("acme-two", "2.0", plugin="acme", code=sampler("two"))
    plugins = find_plugins({})
    assert not {"one", "two"} & set(plugins.names("sampler"))
    problems = plugins.problems()
    assert len(problems) == 2
    assert "plugin name acme is claimed by acme-one 1.0 and acme-two 2.0" in problems[0]


@pytest.mark.parametrize("name", ["acme-one", "acme_one", "Acme.One"])
def test_a_conflict_ends_when_one_distribution_is_disabled(install: Install, name: str) -> None:
    install("acme-one", "1.0", plugin="acme", code=sampler("one"))
    install("acme-two", "2.0", plugin="acme", code=sampler("two"))
    plugins = find_plugins({"PLATFORM_DISABLE_PLUGINS": name})
    assert plugins.get("sampler", "two").plugin.provider == "acme-two 2.0"
    with pytest.raises(UsageError, match="is disabled and may provide it"):
        plugins.get("sampler", "one")


def test_one_name_from_two_plugins_is_an_error_only_when_it_is_chosen(install: Install) -> None:
    install("acme-one", "1.0", plugin="one", code=sampler("twice"))
    install("acme-two", "2.0", plugin="two", code=sampler("twice", "acme_two:Missing"))
    plugins = load_plugins({})
    assert plugins.load("sampler", "ancestral")
    with pytest.raises(UsageError) as error:
        plugins.get("sampler", "twice")
    assert "acme-one 1.0 (plugin one, platform_core.sampler:Ancestral)" in str(error.value)
    assert "acme-two 2.0 (plugin two, acme_two:Missing)" in str(error.value)
    assert "-p no:one" in str(error.value)


@pytest.mark.parametrize("code", ["import not_installed_anywhere", sampler("ancestral")])
def test_strict_plugins_make_what_is_broken_or_in_conflict_fatal(
    install: Install, code: str
) -> None:
    install("acme-bad", "1.0", plugin="acme", code=code)
    with pytest.raises(UsageError, match="acme-bad 1.0"):
        load_plugins({"PLATFORM_STRICT_PLUGINS": "1"})


def test_strict_plugins_accept_what_is_sound() -> None:
    assert load_plugins({"PLATFORM_STRICT_PLUGINS": "1"}).names("process")


def test_a_module_may_be_named_as_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "acme_module.py").write_text(PREAMBLE + sampler("from-module"))
    plugins = find_plugins({"PLATFORM_PLUGINS": "acme_module"})
    assert plugins.get("sampler", "from-module").plugin.provider == "module acme_module"


def test_a_file_plugin_may_replace_an_installed_one(install: Install, tmp_path: Path) -> None:
    install("acme-one", "1.0", plugin="acme", code=sampler("one"))
    file = tmp_path / "over-it.py"
    file.write_text(PREAMBLE + sampler("one", "over_it:Mine") + "class Mine: ...\n")
    plugins = find_plugins({"PLATFORM_PLUGINS": str(file), "PLATFORM_DISABLE_PLUGINS": "acme"})
    assert plugins.get("sampler", "one").plugin.provider == f"file {file}"
    with pytest.raises(UsageError, match=r"over_it:Mine is not a platform_core\.sampler:Sampler"):
        plugins.load("sampler", "one")


def test_a_file_plugin_may_not_take_the_name_of_a_module(tmp_path: Path) -> None:
    file = tmp_path / "json.py"
    file.write_text(PREAMBLE + sampler("one"))
    plugins = find_plugins({"PLATFORM_PLUGINS": str(file)})
    assert "a module called json exists already; rename the file" in found(plugins, "json").reason


def test_a_file_plugin_that_does_not_exist_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match=r"plugin file nowhere\.py does not exist"):
        find_plugins({"PLATFORM_PLUGINS": "nowhere.py"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "could not be imported .* No module named 'platform_nowhere'$"),
        ("absent", "AttributeError: module 'stub_parts' has no attribute 'Absent'"),
        ("unfinished", "stub_parts:Unfinished lacks decoder, encode"),
        (
            "unclear",
            "requires .absorbing. of process; stub_parts:Unclear.requires must",
        ),
        ("schedule-like", "is not a part of that role"),
    ],
)
def test_a_part_that_cannot_be_had_names_its_plugin_and_the_reason(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"^backbone {name} of plugin stub_parts .*{said}"):
        find_plugins({"PLATFORM_PLUGINS": str(STUBS)}).load("backbone", name)


def test_an_unknown_name_comes_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        find_plugins({}).get("process", "absorbin")
    assert "unknown process 'absorbin'; did you mean absorbing? known: " in str(error.value)
    assert "uniform (dlm-platform-core " in str(error.value)


def test_the_name_of_another_role_is_recognised() -> None:
    with pytest.raises(UsageError, match="cosine is a schedule: --schedule cosine"):
        find_plugins({}).get("process", "cosine")


def test_a_part_of_a_plugin_of_ours_that_is_not_installed_says_what_to_install() -> None:
    nothing_else = Plugins([found(find_plugins({}), "core")])
    with pytest.raises(UsageError, match="it comes with dlm-platform-duo, which is not installed"):
        nothing_else.get("process", "duo")
    with pytest.raises(UsageError) as error:
        nothing_else.get("process", "nonsense")
    assert "dlm-platform-duo" not in str(error.value)


def both_noises(**kinds: str) -> Plugins:
    """A process whose option `states` decides which of core's classes its objects are of."""
    targets = {f"states {value}": f"platform_core.process:{it}" for value, it in kinds.items()}
    target = "platform_core.process:AbsorbingOrUniform"
    component = Component("x", target, forms=targets)
    return Plugins([Plugin("p", "module", "", "p", components=(("process", component),))])


def test_an_option_decides_what_the_objects_of_a_part_are() -> None:
    plugins = both_noises(masks="Absorbing", any="Uniform")
    assert {form: kind.__name__ for form, kind in plugins.forms("process", "x").items()} == {
        "states masks": "Absorbing",
        "states any": "Uniform",
    }
    assert plugins.form("process", "x", {"states": "any"}).__name__ == "Uniform"
    with pytest.raises(UsageError, match="process x needs one of its options: states masks or"):
        plugins.form("process", "x", {"states": "none"})


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("Interpolating", "is not complete: platform_core.process:Interpolating lacks prior"),
        ("Nowhere", "could not be imported from platform_core.process:Nowhere"),
        ("PosteriorMixture", "is not a part of that role: platform_core.process:PosteriorMixture"),
    ],
)
def test_a_kind_that_cannot_be_had_is_refused_with_its_part(target: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"process x of plugin p .*{said}"):
        both_noises(masks="Absorbing", any=target).load("process", "x")


@pytest.mark.parametrize("code", ["1 / 0", "import not_installed_anywhere", "x = 1"])
def test_a_plugin_that_is_named_and_broken_is_an_error(tmp_path: Path, code: str) -> None:
    file = tmp_path / "acme_named.py"
    file.write_text(code)
    with pytest.raises(UsageError, match=r"acme_named\.py, which -p names, is broken: "):
        load_plugins({"PLATFORM_PLUGINS": str(file)})


def test_every_loaded_plugin_says_where_it_is_from(install: Install, tmp_path: Path) -> None:
    install("acme-one", "1.5", plugin="acme", code=sampler("one"))
    file = tmp_path / "by_file.py"
    file.write_text(PREAMBLE + sampler("two"))
    plugins = find_plugins({"PLATFORM_PLUGINS": str(file)})
    said = plugins.provenance([("sampler", "one"), ("sampler", "two"), ("process", "uniform")])
    assert said["acme"] == {
        "distribution": "acme-one",
        "version": "1.5",
        "parts": ["sampler one"],
    }
    assert said["by_file"] == {
        "file": str(file),
        "digest": hashlib.sha256(file.read_bytes()).hexdigest(),
        "parts": ["sampler two"],
    }
    assert said["core"]["parts"] == ["process uniform"]
