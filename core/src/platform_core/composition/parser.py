"""Second pass of composition: one jsonargparse parser for exactly the chosen classes.

Options of config files and of the environment become words of the command line in front of the
user's own, so that every source is read, typed and reported alike.
"""

import argparse
import copy
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import jsonargparse

from platform_core.component import ROLES
from platform_core.composition.choice import (
    FALLBACK,
    Choice,
    Given,
    callback_key,
    process_options,
)
from platform_core.composition.computed import COMPUTED
from platform_core.composition.help_page import HelpPage, hide, worded
from platform_core.composition.options import (
    MOST,
    DataOptions,
    EvaluateOptions,
    InitOptions,
    SampleOptions,
    TrackOptions,
    TrainOptions,
    too_many,
)
from platform_core.composition.sources import CALLBACKS, SECTIONS, SEED
from platform_core.composition.words import meant
from platform_core.errors import UsageError, did_you_mean, either, reason
from platform_core.record.yaml_tree import parse_tree, word_value
from platform_core.registry.parts import Plugins

PLAIN = {
    "init": InitOptions,
    "data": DataOptions,
    "train": TrainOptions,
    "evaluate": EvaluateOptions,
    "sample": SampleOptions,
    "track": TrackOptions,
}

_TYPED = re.compile(r'Parser key "([^"]+)": Expected an? (.*?)\. Got value: (.*)')
_ONE_OF_TYPED = re.compile(
    r'Parser key "([^"]+)": Does not validate against any of the Union subtypes '
    r"Subtypes: \[(.*)\] Errors: .* Given value: (.*)"
)
NOTHING = "\0"
"""The command-line word for None, because options of type str read the word null as a text."""


class Parser(jsonargparse.ArgumentParser):
    """An `ArgumentParser` that raises a mistake as a one-line `UsageError`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the parser's message as `UsageError`, on one line."""
        raise UsageError(" ".join(message.split())) from ex


class Formatter(jsonargparse.DefaultHelpFormatter):
    """Says types and defaults in words, and keeps the lines of a list."""

    def _expand_help(self, action: argparse.Action) -> str:
        return worded(super()._expand_help(action))

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        """Choices without null, which stands for what is chosen where an option is left out."""
        written = super()._metavar_formatter(action, default_metavar)
        return lambda size: tuple(word and word.replace(",null}", "}") for word in written(size))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n  " in text:
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class Arguments:
    """The command-line parser for one choice of parts.

    Args:
        choice: the chosen parts.
        classes: classes of the parts by role, and of callbacks by `callbacks.NAME`.
        plugins: the installed plugins, which provide the parts.
        prog: the command, for `--help`.
        extend: adds a verb's own arguments.
        show: adds options that `--help` lists but `sources` reads: names, config files.
    """

    def __init__(
        self,
        choice: Choice,
        classes: Mapping[str, type],
        plugins: Plugins,
        *,
        prog: str,
        extend: Callable[[argparse.ArgumentParser], None] | None = None,
        show: bool = False,
    ) -> None:
        self.choice, self.classes, self.plugins = choice, classes, plugins
        self.parser = Parser(
            prog=prog,
            usage=f"{prog} [--ROLE NAME] [--ROLE.OPTION VALUE] ...",
            allow_abbrev=False,
            formatter_class=Formatter,
        )
        self.parser.add_argument("--seed", type=int, default=1, help="seed of every random draw.")
        if extend is not None:
            extend(self.parser)
        self.own = set(self.parser.get_defaults(skip_validation=True).keys()) - {SEED}
        if show:
            self._show_common()
        for key in choice.parts:
            self._add_part(key, show=show)
        for name in choice.callbacks:
            self._add_callback(name, classes[f"{CALLBACKS}.{name}"])
        for section, options in PLAIN.items():
            group = self.parser.add_argument_group(section, description=_first_paragraph(options))
            group.add_class_arguments(options, section, as_group=False)
        defaults = self.parser.get_defaults(skip_validation=True)
        self._leaves = set(defaults.keys()) - self.own
        self._branches = set(defaults.keys(branches=True)) - self._leaves - self.own
        self._kinds = {action.dest: _kinds(action) for action in self.parser._actions}
        self._set_defaults()

    def of(self, choice: Choice) -> "Arguments":
        """The same parser for another choice of the same parts, because making a parser is slow."""
        assert choice.names == self.choice.names, "other parts have other options"
        assert choice.inner == self.choice.inner, "other parts inside have other options"
        assert choice.callbacks == self.choice.callbacks, "other callbacks have other options"
        other = copy.copy(self)
        other.choice = choice
        return other

    def parse(self, argv: Sequence[str]) -> jsonargparse.Namespace:
        """Parses the values of all options, including the verb's own.

        Raises:
            UsageError: an option is unknown or computed, or a value is not of its type.
        """
        words, sources = [], {}
        for given in self.choice.options:
            for key, value in self._flatten(given, given.key, given.value):
                words.append(f"--{key}={written(value)}")
                sources[key] = f"{given.where}: "
        for word in argv:
            if re.match(r"--(\w+\.|seed\b)", word):
                key = word[2:].partition("=")[0].removesuffix("+")
                self._require_known(key, "")
                sources.pop(key, None)
        texts: dict[str, str | None] = {}
        argv = [self._named(word) for word in argv]
        words = [self._plain_word(word, texts) for word in self._joined([*words, *argv])]
        try:
            values = self.parser.parse_args(words)
            # Parsed again, so that defaults get their declared types too: 1 becomes 1.0.
            normal: jsonargparse.Namespace = self.parser.parse_object(values, defaults=False)
        except UsageError as error:
            raise UsageError(self._explain(str(error), sources)) from error
        for key, text in texts.items():
            if text is None and type(None) not in self._kinds[key]:
                raise UsageError(f"{sources.get(key, '')}{key} is null; expected a text")
            normal[key] = text
        self._require_servable(normal, sources)
        return normal

    def print_help(self, page: HelpPage | None) -> None:
        """Prints the page; defaults are those of the process, config files and the environment."""
        page = page or HelpPage()
        for given in self.choice.options:
            for key, value in self._flatten(given, given.key, given.value):
                self.parser.set_defaults({key: value})
        hide(self.parser, page, self.own)
        self.parser.description = page.beginning()
        self.parser.print_help()

    def section(self, values: jsonargparse.Namespace, section: str) -> dict[str, Any]:
        """The options of one section by name; empty for a part without options."""
        return dict(vars(values[section])) if section in values else {}

    def plain(self, values: jsonargparse.Namespace) -> dict[str, Any]:
        """All options as plain values for YAML, without the verb's own arguments."""
        kept = values.clone()
        for key in self.own:
            kept.pop(key, None)
        dumped = self.parser.dump(kept, format="json", skip_unset=False, skip_validation=True)
        found: dict[str, Any] = json.loads(dumped)
        return found

    def numeric(self) -> list[str]:
        """The options of the parts and of the sections that may be a number."""
        return sorted(key for key in self._leaves if {int, float} & set(self._kinds[key]))

    def kinds(self, option: str) -> tuple[Any, ...]:
        """The types that the values of an option may have."""
        return self._kinds[option]

    def own_values(self, values: jsonargparse.Namespace) -> argparse.Namespace:
        """The values of the verb's own arguments."""
        return argparse.Namespace(**{key: values[key] for key in self.own})

    def _show_common(self) -> None:
        self.parser.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file of options; of several, later ones override.",
        )
        self.parser.add_argument(
            "--init", metavar="RUN", help="start from the weights of a trained run (--init.run)."
        )
        self.parser.add_argument(
            f"--{CALLBACKS}",
            metavar="NAME,...",
            help=f"callbacks of training: {', '.join(self.plugins.names('callback'))}; or none.",
        )
        self.parser.add_argument(
            "--print_config", action="store_true", help="print the complete options and stop."
        )

    def _add_part(self, key: str, *, show: bool) -> None:
        role, name = self.choice.parts[key]
        part, registered = self.classes[key], self.plugins.get(role, name)
        provider = registered.plugin.provider
        origin = self.choice.origins[role] if key == role else f"inside of {key.rpartition('.')[0]}"
        group = self.parser.add_argument_group(
            f"{key} = {name} [{provider}; {origin}]", description=_first_paragraph(part)
        )
        known = f"one of {', '.join(self.plugins.names(role))}."
        if key != role:
            option = f"--{key}" if show else f"--{key}.name"
            group.add_argument(option, metavar="NAME", default=name, type=str, help=known)
        elif show:
            group.add_argument(f"--{role}", metavar="NAME", default=name, help=known)
        skip = {*COMPUTED[role], *registered.component.inside(role)}
        try:
            added = group.add_class_arguments(part, key, as_group=False, skip=skip)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{role} {name} ({provider}) cannot be given options: {reason(error)}"
            ) from error
        if f"{key}.name" in added:
            raise UsageError(
                f"{role} {name} ({provider}) has a parameter called name, which is reserved"
            )

    def _add_callback(self, name: str, callback: type) -> None:
        provider = self.plugins.get("callback", name).plugin.provider
        key = callback_key(name)
        group = self.parser.add_argument_group(
            f"callback {name} [{provider}]", description=_first_paragraph(callback)
        )
        try:
            group.add_class_arguments(callback, key, as_group=False)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"callback {name} ({provider}) cannot be given options: {reason(error)}"
            ) from error

    def _set_defaults(self) -> None:
        """Sets the defaults that the process gives to options of its default parts, if chosen."""
        process = self.choice.names["process"]
        part = self.plugins.get("process", process)
        named = {**FALLBACK, **part.component.defaults, "process": process}
        for key, value in process_options(self.plugins, process).items():
            role = key.partition(".")[0]
            if self.choice.names[role] == named[role]:
                where = f"process {process} ({part.plugin.provider}): "
                self._require_known(key, where)
                self.parser.set_defaults({key: value})

    def _flatten(self, given: Given, key: str, value: Any) -> Iterable[tuple[str, Any]]:
        where = f"{given.where}: "
        self._require_known(key, where)
        if key not in self._branches:
            yield key, value
        elif not isinstance(value, Mapping):
            raise UsageError(f"{where}{key} is {value!r}; it must hold options by name")
        else:
            for name, inner in value.items():
                yield from self._flatten(given, f"{key}.{name}", inner)

    def _named(self, word: str) -> str:
        """The word `--sampler.inner` as the option that holds the name of the inner part."""
        option, given, value = word.partition("=")
        inside = option.removeprefix("--") in self.choice.inner
        return f"{option}.name{given}{value}" if inside else word

    def _joined(self, argv: Sequence[str]) -> Iterator[str]:
        """Joins each option with its value to one word, also if the value begins with a dash."""
        words = iter(argv)
        for word in words:
            if not word.startswith("--") or word[2:].removesuffix("+") not in self._leaves:
                yield word
                continue
            value = next(words, None)
            if value is None or value.startswith("--"):
                yield from (word, *([] if value is None else [value]))
            else:
                yield f"{word}={value}"

    def _plain_word(self, word: str, texts: dict[str, str | None]) -> str:
        """Rewrites a word so that jsonargparse reads its plain value; stores texts in `texts`.

        jsonargparse reads values as YAML 1.1, where 1:30 is 90, and `null` and `# a` are null.
        """
        option, given, value = word.partition("=")
        key = option.removeprefix("--")
        kinds = self._kinds.get(key, ())
        if not given or not option.startswith("--") or key not in self._leaves:
            return word
        if kinds and set(kinds) <= {str, type(None)}:
            texts[key] = None if value == NOTHING else value
            return f"{option}=text"
        if value == NOTHING:
            return f"{option}=null"
        if not kinds or not set(kinds) <= _SIMPLE or value in kinds:
            if "!" in value:
                parse_tree(value, f"the value of {option}")  # which reads no tags but plain ones
            return word
        try:
            plain = word_value(value)
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from error
        endless = isinstance(plain, float) and not math.isfinite(plain)
        if endless and plain != self.parser.get_default(key):
            raise UsageError(f"{key} is {value}; it must be a finite number")
        if isinstance(plain, int) and abs(plain) > LARGEST:
            raise UsageError(f"{key} is {value}; the largest whole number is {LARGEST}")
        # JSON puts texts in quotes, and every reader of YAML reads a quoted text as a text.
        return f"{option}={json.dumps(plain)}"

    def _require_servable(self, values: jsonargparse.Namespace, sources: Mapping[str, str]) -> None:
        """Refuses whole numbers, alone and in lists, that no machine can hold or count through."""
        for key, value in values.items():
            if key.endswith(SEED) or float in self._kinds.get(key, ()):
                continue
            for number in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(number, int) and abs(number) > MOST:
                    raise UsageError(f"{sources.get(key, '')}{key} is {number}; {too_many(MOST)}")

    def _require_known(self, key: str, where: str) -> None:
        section, _, option = key.partition(".")
        if key in self._leaves or key in self._branches:
            return
        if any(key.startswith(f"{leaf}.") for leaf in self._leaves):
            return  # inside an option that is a mapping itself
        if option in COMPUTED.get(section, ()):
            raise UsageError(f"{where}{key} is computed from the other parts; leave it out")
        if section not in SECTIONS:
            near = did_you_mean(section, SECTIONS) or f"; known: {', '.join(SECTIONS)}"
            raise UsageError(f"{where}unknown section {section!r}{near}")
        known = sorted(leaf for leaf in self._leaves if leaf.startswith(f"{section}."))
        of = f" of {section} {self.choice.names[section]}" if section in ROLES else ""
        near = meant(key, known)
        rest = f"; it has {', '.join(known)}" if known else "; it has no options"
        raise UsageError(f"{where}unknown option {key}{of}{near or rest}")

    def _explain(self, message: str, sources: Mapping[str, str]) -> str:
        """Rewrites the parser's message, with the file or variable that the mistake is in."""
        typed = _TYPED.fullmatch(message)
        if typed:
            key, expected, value = typed.groups()
            return f"{sources.get(key, '')}{key} is {value}; expected {_plain_type(expected)}"
        one_of = _ONE_OF_TYPED.fullmatch(message)
        if one_of:
            key, types, value = one_of.groups()
            expected = either([_plain_type(part) for part in types.split(", <")])
            return f"{sources.get(key, '')}{key} is {value}; expected {expected}"
        other = re.fullmatch(r'Parser key "([^"]+)": (.*)', message)
        if other:
            return f"{sources.get(other[1], '')}{other[1]}: {other[2]}"
        bare = re.fullmatch(r"argument (--\S+): expected .*", message)
        if bare:
            return f"{bare[1]} needs a value"
        lacking = re.fullmatch(r"the following arguments are required: (.*)", message)
        if lacking:
            return f"missing: {', '.join(f'--{key}' for key in lacking[1].split(', '))}"
        unknown = re.fullmatch(r"unrecognized arguments: (.*)", message)
        return self._unrecognized(unknown[1]) if unknown else message

    def _unrecognized(self, words: str) -> str:
        word = words.split()[0].partition("=")[0]
        roles = self.plugins.roles_of(word)
        if not word.startswith("-"):
            hint = f"; did you mean --{roles[0]} {word}?" if roles else ""
            return f"unexpected argument {word!r}{hint}"
        missing = self.plugins.missing_option(self.parser.prog, word.removeprefix("--"))
        if missing:
            return f"unknown option {word}; {missing}"
        own = [key for key in self.own if key != "run"]
        known = (*own, *ROLES, SEED, "config", "init", "print_config", *sorted(self._leaves))
        return f"unknown option {word}{meant(word, known)}"


LARGEST = 2**63 - 1
"""The largest whole number that an option may have, as in int64 tensors."""

_SIMPLE = {int, float, bool, type(None)}
"""Types other than str whose values are single words."""


def _kinds(action: argparse.Action) -> tuple[Any, ...]:
    """The member types of an option's type, with the allowed words in place of a Literal."""
    kind = getattr(action, "_typehint", None)
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(
        word
        for each in kinds
        if each is not None
        for word in (get_args(each) if get_origin(each) is Literal else (each,))
    )


def written(value: Any) -> str:
    """A value of a config file as it is written on the command line."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(value, default=str)


def _plain_type(expected: str) -> str:
    name = re.sub(r"<?class '(?:\w+\.)*(\w+)'>", r"\1", expected).replace("typing.", "")
    name = name.replace("NoneType", "null")
    choices = re.fullmatch(r"Literal\[(.*)\]", name)
    return either(choices[1].replace("'", "").split(", ")) if choices else name


def _first_paragraph(part: type) -> str | None:
    document = inspect.getdoc(part)
    return document.split("\n\n")[0] if document else None
