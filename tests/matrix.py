"""The matrix of all registered parts, each combination small enough to be tried.

Every process is there once for each of its discrete options (`states`, `time_conditioned`), since
these decide what goes with it; every other part once, as it is by default. `python tests/matrix.py`
prints how many combinations are valid and how many refused.
"""

import heapq
import inspect
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from accelerate import Accelerator

from platform_core.component import ROLES
from platform_core.composition.choice import FALLBACK, process_names
from platform_core.composition.compatibility import goes_with
from platform_core.composition.compose import Built, Composition
from platform_core.composition.options import (
    DataOptions,
    EvaluateOptions,
    SampleOptions,
    TrackOptions,
    TrainOptions,
)
from platform_core.draws import derive_generator
from platform_core.errors import UsageError
from platform_core.evaluation.bound import Bound, evaluate
from platform_core.registry.loading import find_plugins
from platform_core.registry.parts import Plugins
from platform_core.sampler import Prompt, Sample
from platform_core.training.trainer import Trainer
from platform_core.types import Batch

VOCABULARY, LENGTH, BATCH = 5, 8, 4

TINY: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("backbone", "dit"): {"hidden_size": 16, "num_blocks": 1, "num_heads": 2, "cond_size": 8},
    ("backbone", "hf"): {"hidden_size": 16, "num_blocks": 1, "num_heads": 2},
    ("objective", "block-nelbo"): {"block_size": 3},
}
"""Options that make a part small; parts that are not here are tried as they are by default."""

TRAIN = TrainOptions(steps=2, batch_size=BATCH, warmup_steps=0, precision="fp32")

QUICK = {"steps": 2, "block_size": 3}
"""Options that every sampler that has them is given."""

Options = tuple[tuple[str, object], ...]


class Sentences:
    """A toy corpus: sequences that count upwards, one of them half padding."""

    def __init__(self) -> None:
        starts = torch.randint(VOCABULARY, (16, 1), generator=torch.Generator().manual_seed(0))
        self.ids = (starts + torch.arange(LENGTH)) % VOCABULARY
        self.mask = torch.ones_like(self.ids, dtype=torch.bool)
        self.mask[-1, LENGTH // 2 :] = False

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int]) -> Batch:
        rows = list(rows)
        return Batch(self.ids[rows], self.mask[rows])

    def split(self, name: str) -> "Sentences":
        return self

    def spread(self, number: int) -> "Sentences":
        return self

    def num_characters(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True)
class Row:
    """All of a combination but its sampler, which training does not know of."""

    process: str
    options: Options
    """Of the process."""
    parameterization: str
    schedule: str
    backbone: str
    objective: str

    def __str__(self) -> str:
        options = "".join(f"[{name}={value}]" for name, value in self.options)
        others = (self.parameterization, self.schedule, self.backbone, self.objective)
        return "-".join((self.process + options, *others))

    def names(self, sampler: str) -> dict[str, str]:
        """Role -> name."""
        named = {role: getattr(self, role) for role in ROLES if role != "sampler"}
        return {**named, "sampler": sampler}


class Matrix:
    """All rows and samplers of some plugins."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        plugins.load = cache(plugins.load)  # type: ignore[method-assign]  # asked 100,000 times
        self.data = Sentences()
        self._checked_backbones: dict[object, Any] = {}
        self._ways_out: dict[tuple[str, str, Options], bool] = {}

    @property
    def samplers(self) -> list[str]:
        """Their names."""
        return self.plugins.names("sampler")

    @cached_property
    def rows(self) -> list[Row]:
        """Every process in every form, with every part of the other roles."""
        others = ("parameterization", "schedule", "backbone", "objective")
        named = [self.plugins.names(role) for role in others]
        return [Row(*form, *names) for form in self.forms() for names in itertools.product(*named)]

    def share(self) -> list[Row]:
        """Rows that hold every two parts, together with those that go together in a row and with
        those that do not; and every process, parameterization and objective that go together.

        A twentieth of all rows. A fault of three other parts together is left to the whole matrix.
        """
        good: list[Row] = []
        bad: list[Row] = []
        for row in self.rows:
            (good if self.parts_go_together(row) else bad).append(row)
        return [*covering(good, lambda row: {*pairs(row), formula(row)}), *covering(bad, pairs)]

    def parts_go_together(self, row: Row) -> bool:
        """Whether every two parts of a row do, whatever its sampler is."""
        named = [part for part in row.names("").items() if part[0] != "sampler"]
        return all(itertools.starmap(self._pair_goes_together, itertools.combinations(named, 2)))

    @cache  # noqa: B019  There is one matrix, which lives as long as the process.
    def _pair_goes_together(self, one: tuple[str, str], other: tuple[str, str]) -> bool:
        (a, its_name), (b, other_name) = one, other
        return goes_with(
            (a, self.plugins.forms(a, its_name)), (b, self.plugins.forms(b, other_name))
        )

    def forms(self) -> Iterator[tuple[str, Options]]:
        """Every process with every choice of its discrete options."""
        for name in self.plugins.names("process"):
            values = discrete(self.plugins.load("process", name))
            for chosen in itertools.product(*values.values()):
                yield name, tuple(zip(values, chosen, strict=True))

    def composition(
        self, row: Row, sampler: str, *, backbones: dict[object, Any] | None = None
    ) -> Composition:
        """As the command line would compose it, were every part small.

        Args:
            row: all parts but the sampler.
            sampler: its name.
            backbones: what was made before, for the same row. By default those of all rows, which
                differ in nothing where they are only checked, on the meta device.
        """
        names = row.names(sampler)
        options = {role: dict(TINY.get((role, name), {})) for role, name in names.items()}
        options["process"] = dict(row.options)
        classes = {
            role: self.plugins.form(role, name, options[role]) for role, name in names.items()
        }
        parameters = inspect.signature(classes["sampler"]).parameters
        options["sampler"] = {name: QUICK[name] for name in QUICK if name in parameters}
        factories = {role: partial(classes[role], **options[role]) for role in ROLES}
        inner = {}
        takes = self.plugins.get("sampler", sampler).component.inside("sampler")
        for option, (kind, inside) in takes.items():
            found = self.plugins.load(kind, inside)
            own = {"steps": 2} if kind == "sampler" else {}
            factories["sampler"].keywords[option] = partial(found, **own)
            inner[f"sampler.{option}"] = (kind, inside, found)
        made = self._checked_backbones if backbones is None else backbones
        factories["backbone"] = partial(Shared(factories["backbone"], made), row.backbone)
        return Composition(
            names=names,
            classes=classes,
            factories=factories,
            inner=inner,
            data=DataOptions(length=LENGTH),
            train=TRAIN,
            evaluate=EvaluateOptions(),
            sample=SampleOptions(),
            track=TrackOptions(to="none"),
            seed=1,
            config="",
            plugins=self.plugins,
        )

    def refusal(self, row: Row, sampler: str) -> UsageError | None:
        """Why composition refuses a combination, or None."""
        try:
            self.composition(row, sampler).check()
        except UsageError as error:
            return error
        return None

    def family(self, process: str, options: Options) -> tuple[Row, str]:
        """A process with its own defaults, or the nearest to them that go with it and are there."""
        defaults = {**FALLBACK, **process_names(self.plugins, process)}
        roles = [role for role in ROLES if role != "process"]
        choices = [dict(zip(roles, names, strict=True)) for names in self._choices(roles)]
        choices.sort(key=lambda names: sum(names[role] != defaults[role] for role in roles))
        for names in choices:
            sampler = names.pop("sampler")
            row = Row(process, options, **names)
            if self.refusal(row, sampler) is None:
                return row, sampler
        raise AssertionError(f"nothing goes with {process} {dict(options)}")

    def _choices(self, roles: Sequence[str]) -> Iterator[tuple[str, ...]]:
        return itertools.product(*(self.plugins.names(role) for role in roles))

    def pairs_go_together(self, row: Row, sampler: str) -> bool:
        """Whether `platform plugins --matrix` shows all parts beside each other."""
        parts = [(role, self.plugins.forms(role, n)) for role, n in row.names(sampler).items()]
        return all(goes_with(a, b) for a, b in itertools.combinations(parts, 2))

    def names_a_way_out(self, row: Row, sampler: str, message: str) -> bool:
        """Whether each alternative that a refusal offers, taken by itself, answers it.

        A message need not name the process that it is about, whose options it may speak of: it is
        judged anew for every form of every process.
        """
        key = (message, row.process, row.options)
        if key not in self._ways_out:
            offered = list(self._alternatives(row, sampler, message))
            self._ways_out[key] = bool(offered) and all(
                self._answers(changed, other, message) for changed, other in offered
            )
        return self._ways_out[key]

    def _answers(self, row: Row, sampler: str, message: str) -> bool:
        known = inspect.signature(self.plugins.load("process", row.process)).parameters
        if any(name not in known for name, _ in row.options):
            return False  # it was told to set an option that the process does not have
        refusal = self.refusal(row, sampler)
        return refusal is None or str(refusal) != message

    def _alternatives(self, row: Row, sampler: str, message: str) -> Iterator[tuple[Row, str]]:
        for option, value in re.findall(r"--process\.(\w+) ([\w-]+)", message):
            options = {
                **dict(row.options),
                option: {"true": True, "false": False}.get(value, value),
            }
            yield replace(row, options=tuple(options.items())), sampler
        for role in ROLES:
            for listed in re.findall(rf"\b{role} ((?:[\w-]+(?:, | or |\b))+)", message):
                for name in set(re.findall(r"[\w-]+", listed)) & set(self.plugins.names(role)):
                    if name == row.names(sampler)[role]:
                        continue
                    if role == "sampler":
                        yield row, name
                    elif role == "process":
                        yield replace(row, process=name, options=self._first_options(name)), sampler
                    else:
                        yield replace(row, **{role: name}), sampler

    def _first_options(self, process: str) -> Options:
        return next(options for name, options in self.forms() if name == process)


def parts(row: Row) -> list[tuple[str, object]]:
    """Role and part of a row, but for samplers; a process with its options."""
    return [("process", (row.process, row.options)), *list(row.names("").items())[1:-1]]


def pairs(row: Row) -> set[object]:
    """Every two parts of a row."""
    return set(itertools.combinations(parts(row), 2))


def formula(row: Row) -> object:
    """The parts of a row that a loss is made of."""
    return row.process, row.options, row.parameterization, row.objective


def covering(rows: Sequence[Row], of: Callable[[Row], set[object]]) -> list[Row]:
    """So few of the rows that they hold together what all rows hold.

    The next row is always the first one with most that is still missing. What a row holds of it
    only falls, so that a row is counted again only when it may be the next.

    Args:
        rows: the rows to choose from.
        of: what a row holds.
    """
    holds = [of(row) for row in rows]
    missing: set[object] = set().union(*holds)
    most = [(-len(held), i) for i, held in enumerate(holds)]
    heapq.heapify(most)
    kept = []
    while missing:
        before, best = most[0]
        now = -len(holds[best] & missing)
        heapq.heapreplace(most, (now, best))
        if now == before:
            kept.append(rows[best])
            missing -= holds[best]
    return kept


class Shared:
    """Makes a backbone once for the same facts, and then hands out the same one."""

    def __init__(self, make: Callable[..., Any], made: dict[object, Any]) -> None:
        self.make, self.made = make, made

    def __call__(self, name: str, **facts: Any) -> Any:
        key = (name, *sorted(facts.items()))
        if key not in self.made:
            self.made[key] = self.make(**facts)
        return self.made[key]


class Trial:
    """One row, whose network is trained at most once, however many samplers draw from it."""

    def __init__(self, matrix: Matrix, row: Row) -> None:
        self.matrix, self.row = matrix, row
        self._backbones: dict[object, Any] = {}
        self._trained: Bound | None = None

    def run(self, sampler: str) -> tuple[Bound, Sample]:
        """Two updates and a bound, unless another sampler's turn had them before; and samples."""
        built = self._build(sampler)
        if self._trained is None:
            self._trained = self._train(built)
        return self._trained, self._draw(built)

    def _build(self, sampler: str) -> Built:
        torch.manual_seed(0)
        composition = self.matrix.composition(self.row, sampler, backbones=self._backbones)
        return composition.build(VOCABULARY)

    def _train(self, built: Built) -> Bound:
        # A new one, because an accelerator keeps all that it ever prepared.
        data, accelerator = self.matrix.data, Accelerator(cpu=True)
        trainer = Trainer(built.objective, data, TRAIN, accelerator=accelerator, seed=1)
        before = {name: parameter.detach().clone() for name, parameter in trainer.trained.items()}
        for _ in range(TRAIN.steps):
            trainer.update()
        assert any(not p.equal(before[name]) for name, p in trainer.trained.items())
        return evaluate(
            built.objective,
            data,
            accelerator,
            sequences=BATCH,
            batch_size=BATCH,
            protocol="exact",
            seed=1,
        )

    def _draw(self, built: Built) -> Sample:
        """Samples that all begin with token 2."""
        shape = (2, LENGTH)
        fixed = torch.arange(LENGTH).expand(shape) == 0
        built.model.eval()
        with torch.no_grad():
            prompt = Prompt(torch.full(shape, 2), fixed)
            return built.sampler(built.model, shape, derive_generator(0), prompt)


def discrete(process: type) -> dict[str, tuple[object, ...]]:
    """The options of a process that have a few values only, and those values, the default first."""
    parameters = inspect.signature(process).parameters
    hints = get_type_hints(process.__init__)
    values = {}
    for name, parameter in parameters.items():
        if get_origin(hints.get(name)) is Literal:
            choices: tuple[object, ...] = get_args(hints[name])
        elif hints.get(name) is bool:
            choices = (False, True)
        else:
            continue
        values[name] = tuple(sorted(choices, key=lambda value: value != parameter.default))
    return values


def counts(matrix: Matrix) -> dict[str, Counter[str]]:
    """Valid and refused combinations of each process."""
    found: dict[str, Counter[str]] = {}
    for row in matrix.rows:
        form = str(row).partition("-")[0] if not row.options else str(row).partition("]")[0] + "]"
        for sampler in matrix.samplers:
            kind = "refused" if matrix.refusal(row, sampler) else "valid"
            found.setdefault(form, Counter())[kind] += 1
    return found


def main() -> None:
    """Prints them."""
    found = counts(Matrix(find_plugins({})))
    for form, kinds in [*found.items(), ("all", sum(found.values(), Counter()))]:
        print(f"{form:32} {kinds['valid']:6,} valid {kinds['refused']:6,} refused")


if __name__ == "__main__":
    main()
