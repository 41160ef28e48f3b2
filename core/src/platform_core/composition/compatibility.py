"""Compatibility of parts: each part's `requires`, read from classes before anything is built.

    requires = {"process": Absorbing}      this part works with absorbing processes only

Composition checks the chosen parts; `platform plugins --matrix` shows all parts. If an option
decides the class of a part's objects, the matrix lists the parts that go with any of these classes,
and composition checks the class that the options select.
"""

import re
from collections.abc import Mapping

from platform_core.component import ROLES
from platform_core.errors import IncompatibleError, UsageError, either, with_article
from platform_core.registry.parts import Plugins


def require_compatible(
    names: Mapping[str, str], classes: Mapping[str, type], plugins: Plugins
) -> None:
    """Refuses parts if one of them requires another class in some role than the chosen one.

    Args:
        names: role -> name; a component of another kind that a part takes may be among them.
        classes: role -> class of the object.
        plugins: the installed plugins, for alternatives in the message.

    Raises:
        IncompatibleError: two parts do not go together; the message names alternatives.
    """
    for role in classes:
        for other, needed in requirements(classes[role]).items():
            if not issubclass(classes[other], needed):
                raise IncompatibleError(
                    _message(role, other, needed, names, classes[other], plugins)
                )


def goes_with(
    first: tuple[str, Mapping[str, type]], second: tuple[str, Mapping[str, type]]
) -> bool:
    """Whether two parts, each as (role, `Plugins.forms`), meet each other's requirements.

    One combination of their forms, thus of their options, is enough.
    """
    (role, ones), (other, others) = first, second
    return any(
        issubclass(found, requirements(one).get(other, object))
        and issubclass(one, requirements(found).get(role, object))
        for one in ones.values()
        for found in others.values()
    )


def require_conditional(
    label: str, names: Mapping[str, str], classes: Mapping[str, type], plugins: Plugins
) -> None:
    """Refuses a backbone that cannot be conditioned on a label.

    Raises:
        IncompatibleError: the backbone cannot; the message names backbones that can.
    """
    from platform_core.backbone import Conditional  # imports torch, so not at the top

    asked = f"data.label {label} needs a backbone that reads labels"
    _require_backbone(Conditional, asked, "--data.label", names, classes, plugins)


def require_sighted(
    names: Mapping[str, str], classes: Mapping[str, type], plugins: Plugins
) -> None:
    """Refuses a backbone that cannot keep the documents of a sequence apart.

    Raises:
        IncompatibleError: the backbone cannot; the message names backbones that can.
    """
    from platform_core.backbone import Sighted  # imports torch

    asked = "data.document_masks needs a backbone that keeps documents apart"
    _require_backbone(Sighted, asked, "--data.document_masks", names, classes, plugins)


def _require_backbone(
    needed: type,
    asked: str,
    option: str,
    names: Mapping[str, str],
    classes: Mapping[str, type],
    plugins: Plugins,
) -> None:
    if issubclass(classes["backbone"], needed):
        return
    known = [n for n, part in loadable(plugins, "backbone").items() if issubclass(part, needed)]
    choices = f"choose backbone {either(known)}, or " if known else ""
    raise IncompatibleError(
        f"{asked}, but backbone is {names['backbone']}; {choices}leave out {option}"
    )


def requirements(part: type) -> Mapping[str, type]:
    """Role -> class that a part requires there: its `requires`, or empty if it has none."""
    found: Mapping[str, type] = getattr(part, "requires", {})
    return found


def _message(
    role: str,
    other: str,
    needed: type,
    names: Mapping[str, str],
    found: type,
    plugins: Plugins,
) -> str:
    alternatives = {
        name: part for name, part in loadable(plugins, other).items() if issubclass(part, needed)
    }
    exact = [name for name, part in alternatives.items() if part is needed]
    word = exact[0] if exact else re.sub(r"(?<=[a-z])(?=[A-Z])", "-", needed.__name__).lower()
    by_option = plugins.forms(other, names[other])
    present = [f" with {option}" for option, kind in by_option.items() if kind is found and option]
    choices = [
        f"--{other}.{option}" for option, kind in by_option.items() if issubclass(kind, needed)
    ]
    choices += [f"{other} {either(list(alternatives))}"] if alternatives else []
    return (
        f"{role} {names[role]} needs {with_article(word)} {other}, "
        f"but {other} is {names[other]}{''.join(present)}; "
        f"choose {''.join(f'{choice}, or ' for choice in choices)}another {role}"
    )


def loadable(plugins: Plugins, role: str) -> dict[str, type]:
    """The classes of a role by name, without parts that cannot be loaded."""
    found = {}
    for name in plugins.names(role):
        try:
            found[name] = plugins.load(role, name)
        except UsageError:
            continue
    return found


def matrix(plugins: Plugins, role: str) -> dict[str, dict[str, list[str]]]:
    """For each part of a role, the parts of every other role that it goes with."""
    parts = {
        other: {name: plugins.forms(other, name) for name in loadable(plugins, other)}
        for other in ROLES
    }
    return {
        name: {
            other: [
                candidate
                for candidate, candidate_forms in parts[other].items()
                if goes_with((role, part), (other, candidate_forms))
            ]
            for other in ROLES
            if other != role
        }
        for name, part in parts[role].items()
    }
