"""From names to objects: what `--process duo --backbone dit --train.steps 800` builds.

    names (which parts)  ->  arguments (their options)  ->  Composition  ->  Built

Used by every verb that trains or reads a model, and by sweeps, which compose many times in one
process: a mistake raises `UsageError`, and only `--help` and `--print_config` end the program.
"""

import glob
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.component import ROLES
from platform_core.composition.choice import Choice, callback_key, choose
from platform_core.composition.compatibility import (
    require_compatible,
    require_conditional,
    require_sighted,
)
from platform_core.composition.computed import accepted
from platform_core.composition.corpora import shares, with_paths
from platform_core.composition.optimizer import require_optimizer
from platform_core.composition.options import (
    DataOptions,
    EvaluateOptions,
    InitOptions,
    SampleOptions,
    TrackOptions,
    TrainOptions,
)
from platform_core.composition.sources import (
    CALLBACKS,
    INIT,
    SECTIONS,
    SEED,
    Layer,
    Request,
    read,
    read_config,
)
from platform_core.errors import IncompatibleError, UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.files import read_json
from platform_core.registry.parts import Plugins

if TYPE_CHECKING:
    from jsonargparse import Namespace as Values

    from platform_core.callback import Callback
    from platform_core.composition.help_page import HelpPage
    from platform_core.composition.parser import Arguments
    from platform_core.model import Model
    from platform_core.objective import Objective
    from platform_core.sampler import Sampler

TRAINED = ("process", "schedule", "parameterization", "backbone")
"""Roles whose parts and options are fixed once a network is trained."""

TRAINED_ON = ("data.label", "data.tokenizer")
"""Other options that are fixed once a network is trained: they set its vocabulary and labels."""

MAY_CHANGE = (
    "train.steps",
    "train.log_every",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.checkpoint_activations",
    "train.checkpoint_writing",
    "train.profile",
    "train.flops",
    "evaluate",
    "sample",
    "sampler",
    "track",
    "callbacks",
    "data.path",
    "data.mix",
)
"""Sections and options that a resumed training may change; another path or mix has to hold the same
text in the same shares, which is checked once it is read."""

CHANGES_NUMBERS = (
    "train.learning_rate",
    "train.accumulate",
    "train.precision",
    "train.compile",
)
"""Options that it may change too, though its numbers are then of no undisturbed run."""

PLACEHOLDER_VOCABULARY = 32
PLACEHOLDER_LABELS = 2

Extend = Callable[[ArgumentParser], None]
Parsers = dict[tuple[str, ...], "Arguments"]
"""Names of the chosen parts and callbacks -> the parser of their options."""


@dataclass(frozen=True)
class Built:
    """The objects of a composition; the objective holds the model."""

    model: "Model"
    objective: "Objective"
    sampler: "Sampler"


@dataclass(frozen=True)
class Composition:
    """Chosen parts and all options, checked."""

    names: Mapping[str, str]
    """Role -> name of the chosen part."""
    classes: Mapping[str, type]
    """Role -> class of the object."""
    factories: Mapping[str, "partial[Any]"]
    """Role -> class with its options; parameters computed from other parts are still open."""
    data: DataOptions
    train: TrainOptions
    evaluate: EvaluateOptions
    sample: SampleOptions
    track: TrackOptions
    seed: int
    config: str
    """Complete YAML: composing it again gives this text, byte for byte."""
    plugins: Plugins = field(repr=False, compare=False)
    init: InitOptions = InitOptions()
    callbacks: Mapping[str, "partial[Callback]"] = field(default_factory=dict)
    """Name of a callback -> class with its options."""
    inner: Mapping[str, tuple[str, str, type]] = field(default_factory=dict)
    """Key of a part inside of another, such as sampler.inner -> kind, name and class."""

    def build(
        self,
        vocab_size: int,
        num_labels: int = 0,
        *,
        tokenizer: Any = None,
        label_names: Sequence[str] | None = None,
    ) -> Built:
        """Builds all parts on the default device.

        Args:
            vocab_size: number of tokens of the tokenizer.
            num_labels: number of labels of the data; 0 if they have none.
            tokenizer: the tokenizer, for parts that take it; None if there is none yet.
            label_names: names of the labels; by default label 0, label 1 and so on.

        Raises:
            UsageError: a part refuses its options, or what it is told of the text.
        """
        from platform_core.model import Model

        names = label_names or [f"label {number}" for number in range(num_labels)]
        text = self._text(tokenizer, names)
        process = self._make("process", vocab_size=vocab_size, **text)
        facts = {"vocab_size": process.vocab_size, "num_states": process.num_states, **text}
        model = Model(
            process,
            self._make("schedule", **facts),
            self._make("parameterization", **facts),
            self._make(
                "backbone",
                **facts,
                causal=process.causal,
                time_conditioned=process.time_conditioned,
                num_labels=num_labels,
            ),
        )
        objective = self._make("objective", model=model, **text)
        sampler = self.sampler_for(objective, tokenizer=tokenizer, label_names=names)
        return Built(model, objective, sampler)

    def sampler_for(
        self, objective: "Objective", *, tokenizer: Any, label_names: Sequence[str]
    ) -> "Sampler":
        """The sampler, for a model that there is already.

        Args:
            objective: holds the model.
            tokenizer: the tokenizer, for samplers that take it; None if there is none yet.
            label_names: names of the labels; empty if there are none.

        Raises:
            UsageError: the sampler refuses its options.
        """
        process = objective.model.process
        sampler: Sampler = self._make(
            "sampler",
            vocab_size=process.vocab_size,
            num_states=process.num_states,
            time_conditioned=process.time_conditioned,
            objective=objective,
            **self._text(tokenizer, label_names),
        )
        return sampler

    def _text(self, tokenizer: Any, label_names: Sequence[str]) -> dict[str, Any]:
        """What parts may be told of the text."""
        return {
            "length": self.data.length,
            "tokenizer": tokenizer,
            "pad_id": _pad_id(tokenizer),
            "label_names": tuple(label_names),
        }

    def options(self, role: str) -> dict[str, Any]:
        """The options of a part by name; those of a part inside of it stand, with its name, under
        the parameter that takes it, such as `inner`.
        """
        return self._options(role, self.factories[role])

    def _options(self, key: str, factory: "partial[Any]") -> dict[str, Any]:
        found = dict(factory.keywords)
        for option, inside in self._inside(key, factory).items():
            _, name, _ = self.inner[inside]
            found[option] = {"name": name, **self._options(inside, found[option])}
        return found

    def _inside(self, key: str, factory: "partial[Any]") -> dict[str, str]:
        """The options of a part that are parts themselves -> their keys."""
        keys = {option: f"{key}.{option}" for option in factory.keywords}
        return {option: inside for option, inside in keys.items() if inside in self.inner}

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Every loaded plugin by name: where it is from, and the chosen parts that it brings."""
        inner = [(role, name) for role, name, _ in self.inner.values()]
        chosen = [*self.names.items(), *inner, *(("callback", name) for name in self.callbacks)]
        return self.plugins.provenance(chosen)

    def make_callbacks(self) -> dict[str, "Callback"]:
        """Makes the callbacks, by name, in their state before training.

        Raises:
            UsageError: a callback refuses its options.
        """
        made = {}
        for name, factory in self.callbacks.items():
            try:
                made[name] = factory()
            except ValueError as error:
                raise UsageError(f"callback {name}: {error}") from error
        return made

    def with_seed(self, seed: int) -> "Composition":
        """The same composition with another seed, as if composed with that seed."""
        rest = self.config.removesuffix(f"{SEED}: {self.seed}\n")
        assert rest != self.config, "the seed is the config's last line"
        return replace(self, seed=seed, config=f"{rest}{SEED}: {seed}\n")

    def check(self) -> None:
        """Checks that the parts go together and accept their options, without making weights.

        Raises:
            IncompatibleError: two parts do not go together.
            UsageError: a part refuses its options.
        """
        import torch

        self.make_callbacks()
        require_optimizer(self.train.optimizer, self.plugins)
        shares(self.data)
        with torch.device("meta"):
            require_compatible(self.names, self.classes, self.plugins)
            for key, (role, name, kind) in self.inner.items():
                names, classes = {**self.names, role: name}, {**self.classes, role: kind}
                try:
                    require_compatible(names, classes, self.plugins)
                except IncompatibleError as error:
                    raise IncompatibleError(f"{error} (--{key})") from error
            self._check_labels()
            if self.data.document_masks:
                require_sighted(self.names, self.classes, self.plugins)
            labelled = self.data.label is not None
            self.build(PLACEHOLDER_VOCABULARY, PLACEHOLDER_LABELS if labelled else 0)

    def _check_labels(self) -> None:
        label, asked = self.data.label, self.sample.label
        if label is None:
            if asked is not None:
                raise UsageError(
                    f"sample.label is {asked!r}, but this model has no labels; leave it out, or "
                    "train a model with --data.label"
                )
            return
        require_conditional(label, self.names, self.classes, self.plugins)
        needs_none = asked is None or self.sample.guidance != 1
        if self.train.label_dropout == 0 and self.sample.number and needs_none:
            raise UsageError(
                "train.label_dropout is 0, so the model never learns to write without a label; "
                "give --sample.label, without --sample.guidance, or train with "
                "--train.label_dropout 0.1"
            )

    def _make(self, role: str, **computed: Any) -> Any:
        chosen = role, self.names[role], self.classes[role]
        return self._made(role, chosen, self.factories[role], computed)

    def _made(
        self,
        key: str,
        chosen: tuple[str, str, type],
        factory: "partial[Any]",
        computed: Mapping[str, Any],
    ) -> Any:
        """The object of a factory, with those arguments computed from other parts that it takes.

        Args:
            key: of the part, such as sampler.inner.
            chosen: kind, name and class of the part.
            factory: makes the object; parts inside of it are factories among its options.
            computed: arguments computed from other parts.
        """
        role, name, kind = chosen
        told = {name: computed[name] for name in accepted(kind, computed)}
        for option, inside in self._inside(key, factory).items():
            own: partial[Any] = factory.keywords[option]
            told[option] = self._made(inside, self.inner[inside], own, computed)
        try:
            return factory(**told)
        except ValueError as error:
            raise UsageError(f"{role} {name}: {error}") from error


def _kind(factory: "partial[Any]") -> type:
    """The class that a factory makes objects of."""
    assert isinstance(factory.func, type), "factories are of classes"
    return factory.func


def _pad_id(tokenizer: Any) -> int | None:
    """The id of the tokenizer's padding; None where there is no tokenizer, or none with a text."""
    try:
        return None if tokenizer is None else tokenizer.pad_id
    except UsageError:
        return None  # ids without text, of an imported network


def compose(
    argv: Sequence[str],
    plugins: Plugins,
    *,
    prog: str,
    extend: Extend | None = None,
    environ: Mapping[str, str] = os.environ,
    parsers: Parsers | None = None,
    page: "HelpPage | None" = None,
) -> tuple[Composition, Namespace]:
    """The composition that the command line, its config files and the environment ask for.

    With `--init RUN`, the new run starts from RUN's network: options of network, data and tokenizer
    that are not given are those of RUN.

    Args:
        argv: the words after the verb.
        plugins: the installed plugins, which provide the parts.
        prog: the command, for `--help`.
        extend: adds the verb's own arguments to the parser.
        environ: environment variables.
        parsers: a cache, for callers that compose many times with one verb and the same plugins.
        page: what `--help` shows.

    Returns:
        The composition, and the values of the verb's own arguments.

    Raises:
        UsageError: something asked for does not exist, has the wrong type, or does not go together;
            or the network of `--init` was trained with other parts or options.
        SystemExit: after `--help` or `--print_config`.
    """
    request = replace(read(argv, environ), page=page)
    start = _start(request)
    if start is None:
        choice = choose(request.layers, plugins, request.rest)
        arguments, values = _parse(
            request, choice, plugins, prog=prog, extend=extend, parsers=parsers
        )
        return _finish(request, arguments, values)
    layers = (_network(start.config), *request.layers)
    arguments, values = _parse_trained(
        start.config, replace(request, layers=layers), plugins, prog=prog, extend=extend
    )
    values[INIT] = str(start.path)
    values["init.step"] = _step(start, values["init.step"])
    return _finish(request, arguments, values)


def compose_saved(
    saved: Path,
    argv: Sequence[str],
    plugins: Plugins,
    *,
    prog: str,
    extend: Extend | None = None,
    environ: Mapping[str, str] = os.environ,
    training: bool = False,
    page: "HelpPage | None" = None,
) -> tuple[Composition, Namespace]:
    """As `compose`, on top of a run's saved config, for verbs that use a trained network.

    Sampler, data, evaluation and the objective's options may differ from the saved ones. Callbacks
    are left out unless `training` continues; then only what `MAY_CHANGE` names may differ.

    Raises:
        UsageError: as `compose`; or the network was trained with other parts or options, or with a
            part that nothing brings now.
    """
    request = replace(read(["--config", str(saved), *argv], environ), page=page)
    if not training:
        request = replace(request, layers=tuple(map(_without_callbacks, request.layers)))
    arguments, values = _parse_trained(
        saved,
        request,
        plugins,
        prog=prog,
        extend=extend,
        fixed=(*TRAINED, "objective"),
        fixed_options=(*TRAINED, "init"),
        resumed=training,
    )
    return _finish(request, arguments, values)


def _require_there(saved: Path, plugins: Plugins, *, training: bool) -> None:
    """Says of a part that is missing now where the run had it from.

    Raises:
        UsageError: it had one from a plugin that is not loaded now.
    """
    try:
        had = read_json(RunDirectory(saved.parent).environment).get("plugins", {})
        whole = [(p, q.get("parts", ()), q) for p, q in had.items()]
    except (OSError, UsageError, AttributeError):
        return
    for plugin, parts, origin in whole:
        for part in parts:
            kind, _, name = str(part).partition(" ")
            if plugins.find(kind, name) or (kind == "callback" and not training):
                continue
            file = origin.get("file") or origin.get("module")
            where = f"-p {file}" if file else f"plugin {plugin} of {origin.get('distribution')}"
            version = f" {origin['version']}" if "version" in origin else ""
            todo = f"give {where} again" if file else "install it"
            raise UsageError(
                f"unknown {kind} {name!r}; this run had it from {where}{version}: {todo}"
            )


def _require_resumable(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with a training under options that it was not begun with.

    Args:
        saved: section -> options, or single values, that the run had.
        now: those that are asked for.

    Raises:
        UsageError: one differs that may not.
    """
    for section, before in saved.items():
        pairs = before.items() if isinstance(before, Mapping) else [("", before)]
        for option, value in pairs:
            asked = now[section][option] if option else now[section]
            key = f"{section}.{option}" if option else section
            if asked == value or {section, key} & set(MAY_CHANGE):
                continue
            if key not in CHANGES_NUMBERS:
                raise UsageError(
                    f"the run was trained with {key} {value}, not {asked}, and --resume goes on "
                    f"as it began; leave that out. What may change: {', '.join(MAY_CHANGE)}; with "
                    f"other numbers than an undisturbed run's: {', '.join(CHANGES_NUMBERS)}. For "
                    "others, start a new run from its weights with --init"
                )
            print(
                f"note: {key} is {asked} from here on, and was {value}: the numbers are no longer "
                "those of an undisturbed run",
                file=sys.stderr,
            )


def _without_callbacks(layer: Layer) -> Layer:
    options = {k: v for k, v in layer.options.items() if not k.startswith(f"{CALLBACKS}.")}
    return replace(layer, options=options, callbacks=None)


def require_start(composition: Composition) -> None:
    """Refuses an objective that needs trained weights, if no run to start from is named.

    Raises:
        UsageError: the objective needs a trained teacher, and `init.run` is not set.
    """
    objective: type[Objective] = composition.classes["objective"]
    if objective.starts_from_trained and composition.init.run is None:
        raise UsageError(
            f"objective {composition.names['objective']} trains a student from a trained teacher, "
            "but no teacher is named; name the teacher's run with --init RUN"
        )


def _start(request: Request) -> RunDirectory | None:
    """The run to start from, as the last layer that sets `init.run` names it; None if none does."""
    named = [layer.options[INIT] for layer in request.layers if layer.options.get(INIT)]
    return RunDirectory.existing(Path(str(named[-1])).absolute()) if named else None


def _network(saved: Path) -> Layer:
    """The names and options of a run's config that describe its network and data."""
    whole = read_config(saved)
    names = {role: whole.names[role] for role in TRAINED if role in whole.names}
    kept = {
        key: value
        for key, value in whole.options.items()
        if key.partition(".")[0] in (*TRAINED, "data")
    }
    return Layer(whole.source, names, kept)


def _step(start: RunDirectory, asked: int | None) -> int:
    """The step of the checkpoint to start from: the one asked for, or else the newest."""
    there = start.steps()
    if not there:
        raise UsageError(
            f"{start.path} has no checkpoint yet; continue it with --resume {start.path}"
        )
    if asked not in (None, *there):
        raise UsageError(
            f"{start.path} has no checkpoint of step {asked}; it has those of "
            f"{', '.join(map(str, there))}"
        )
    return there[-1] if asked is None else asked


def _parse_trained(
    saved: Path,
    request: Request,
    plugins: Plugins,
    *,
    prog: str,
    extend: Extend | None,
    fixed: tuple[str, ...] = TRAINED,
    fixed_options: tuple[str, ...] = TRAINED,
    resumed: bool = False,
) -> tuple["Arguments", "Values"]:
    """Parses the options of a request; refuses those that change the network of a saved config.

    Args:
        saved: the config that the network was trained with.
        request: the sources of names and options.
        plugins: the installed plugins, which provide the parts.
        prog: the command, for `--help`.
        extend: adds the verb's own arguments.
        fixed: roles whose parts may not change.
        fixed_options: sections whose options may not change.
        resumed: whether its training goes on, so that most others may not change either.
    """
    base = read(["--config", str(saved)], {})
    base = replace(base, layers=tuple(map(_without_callbacks, base.layers)))
    try:
        trained = choose(base.layers, plugins)
        choice = choose(request.layers, plugins, request.rest)
    except UsageError:
        _require_there(saved, plugins, training=resumed)
        raise
    for role in fixed:
        if choice.names[role] != trained.names[role]:
            raise _changed(f"{role} {trained.names[role]}", f"{role} {choice.names[role]}")
    arguments, values = _parse(request, choice, plugins, prog=prog, extend=extend)
    before_arguments, before = _parse(base, trained, plugins, prog=prog)
    for section in fixed_options:
        now = arguments.section(values, section)
        for option, value in arguments.section(before, section).items():
            if now[option] != value:
                raise _changed(f"{section}.{option} {value}", str(now[option]))
    for key in TRAINED_ON:
        if values[key] != before[key]:
            raise _changed(f"{key} {before[key]}" if before[key] else f"no {key}", str(values[key]))
    if resumed:
        _require_resumable(_sections(before_arguments, before), _sections(arguments, values))
    return arguments, values


def _sections(arguments: "Arguments", values: "Values") -> dict[str, Any]:
    """What a config says but for parts that may change; sections and the seed."""
    plain = arguments.plain(values)
    return {key: plain[key] for key in (*SECTIONS, SEED) if key in plain and key not in MAY_CHANGE}


def _changed(trained: str, asked: str) -> UsageError:
    return UsageError(f"the network was trained with {trained}, not {asked}; leave that out")


def _parse(
    request: Request,
    choice: Choice,
    plugins: Plugins,
    *,
    prog: str,
    extend: Extend | None = None,
    parsers: Parsers | None = None,
) -> tuple["Arguments", "Values"]:
    kept = {} if parsers is None or request.help else parsers
    inside = (f"{key} {kind} {name}" for key, (kind, name) in choice.inner.items())
    key = (*choice.names.values(), *inside, *choice.callbacks)
    if key in kept:
        arguments = kept[key].of(choice)
        return arguments, _self_contained(arguments, arguments.parse(request.rest))
    classes = {key: plugins.load(role, name) for key, (role, name) in choice.parts.items()}
    classes |= {f"{CALLBACKS}.{name}": plugins.load("callback", name) for name in choice.callbacks}
    # Imported here, so that a misspelt name is reported before jsonargparse is imported.
    from platform_core.composition.parser import Arguments

    arguments = Arguments(choice, classes, plugins, prog=prog, extend=extend, show=request.help)
    if request.help:
        arguments.print_help(request.page)
        raise SystemExit(0)
    kept[key] = arguments
    return arguments, _self_contained(arguments, arguments.parse(request.rest))


def _from_anywhere(path: str | None) -> str | None:
    """The path of data that are there, so that it is found from every directory."""
    if path is None or not (Path(path).exists() or glob.glob(path)):
        return path
    return str(Path(path).absolute())


def _self_contained(arguments: "Arguments", values: "Values") -> "Values":
    """The values, so that nothing else is needed: the paths of the data and those that a part
    calls its `paths` are absolute, and the backbone keeps what describes its network elsewhere.
    """
    from platform_core.backbone import FromElsewhere

    values["data.path"] = _from_anywhere(values["data.path"])
    values["data.mix"] = with_paths(values["data.mix"], _from_anywhere)
    for key in arguments.choice.parts:
        for option in getattr(arguments.classes[key], "paths", ()):
            values[f"{key}.{option}"] = _from_anywhere(values[f"{key}.{option}"])
    backbone = arguments.classes["backbone"]
    if issubclass(backbone, FromElsewhere):
        for name, value in backbone.kept(arguments.section(values, "backbone")).items():
            values[f"backbone.{name}"] = value
    return values


def _finish(
    request: Request, arguments: "Arguments", values: "Values"
) -> tuple[Composition, Namespace]:
    """Prints the notes; returns the checked composition and the values of the verb's arguments."""
    for note in arguments.choice.notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        composition = _composition(arguments, values)
    except ValueError as error:
        raise UsageError(str(error)) from error
    composition.check()
    if request.print_config:
        print(composition.config, end="")
        raise SystemExit(0)
    return composition, arguments.own_values(values)


def _composition(arguments: "Arguments", values: "Values") -> Composition:
    from platform_core.composition.parser import PLAIN

    config = _config(arguments, values)
    made = arguments.parser.instantiate(values)
    plain: dict[str, Any] = {
        section: options(**arguments.section(made, section)) for section, options in PLAIN.items()
    }
    factories = {key: _factory(arguments, made, key) for key in arguments.choice.parts}
    return Composition(
        names=arguments.choice.names,
        classes={role: _kind(factories[role]) for role in ROLES},
        factories={role: factories[role] for role in ROLES},
        inner={
            key: (role, name, _kind(factories[key]))
            for key, (role, name) in arguments.choice.parts.items()
            if key != role
        },
        callbacks={
            name: partial(
                arguments.classes[f"{CALLBACKS}.{name}"],
                **arguments.section(made, callback_key(name)),
            )
            for name in arguments.choice.callbacks
        },
        seed=made[SEED],
        config=config,
        plugins=arguments.plugins,
        **plain,
    )


def _factory(arguments: "Arguments", values: "Values", key: str) -> "partial[Any]":
    """The class of a part with its options; those that are parts themselves are such too."""
    role, name = arguments.choice.parts[key]
    options = arguments.section(values, key)
    if key != role:
        del options["name"]
    for option in arguments.plugins.get(role, name).component.inside(role):
        options[option] = _factory(arguments, values, f"{key}.{option}")
    return partial(arguments.plugins.form(role, name, options), **options)


def _config(arguments: "Arguments", values: "Values") -> str:
    from platform_core.record.yaml_tree import tree_text

    plain = arguments.plain(values)
    sections = {section: plain.get(section, {}) for section in SECTIONS if section != CALLBACKS}
    named = [name.replace("-", "_") for name in arguments.choice.callbacks]
    if named:
        given = plain.get(CALLBACKS, {})
        sections[CALLBACKS] = {name: given.get(name, {}) for name in named}
    for role in ROLES:
        sections[role] = {"name": arguments.choice.names[role], **sections[role]}
    return tree_text({**sections, SEED: plain[SEED]})
