"""A trained run, opened from its directory for evaluation, sampling or export.

    run = TrainedRun.open("runs/long")
    run.model, run.tokenizer, run.sample(4, prompt="My fellow"), run.evaluate(sequences=64)

Used by `platform eval`, `sample` and `export`, by judges and tasks, and from Python.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator

from platform_core.backbone import FromElsewhere
from platform_core.composition.compose import Built, Composition, compose_saved
from platform_core.composition.options import InitOptions
from platform_core.data.sequences import Data, load_data
from platform_core.data.tokenizer import Tokenizer, load_tokenizer
from platform_core.data.tokenizer.library import LibraryTokenizer
from platform_core.evaluation.bound import Bound, evaluate
from platform_core.evaluation.card import card_of, mix_facts
from platform_core.evaluation.samples import Onlooker, Samples, generate
from platform_core.model import Model, weights
from platform_core.objective import Objective
from platform_core.process import Masking
from platform_core.record.cards import Card
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest, read_json
from platform_core.registry.loading import load_plugins
from platform_core.runtime import accelerator as runtime
from platform_core.runtime import state
from platform_core.runtime.checkpoint import CheckpointError, Checkpoints, load_weights
from platform_core.runtime.network import compile_networks
from platform_core.sampler import Sampler

if TYPE_CHECKING:
    from platform_core.registry.parts import Plugins


class TrainedRun:
    """A run with a checkpoint: its options, tokenizer, network and data, each read when needed.

    Args:
        directory: directory of the run.
        composition: the run's own, with other options of evaluation or sampling if wanted.
        accelerator: accelerator to whose device the network goes.
        average: which weights `model`, `objective` and `sampler` have.
    """

    def __init__(
        self,
        directory: RunDirectory,
        composition: Composition,
        accelerator: Accelerator,
        *,
        average: str = "ema",
    ) -> None:
        self.directory, self.composition = directory, composition
        self.accelerator, self.average = accelerator, average

    @classmethod
    def open(
        cls,
        path: str | Path,
        options: Sequence[str] = (),
        *,
        average: state.Average = "ema",
        accelerator: Accelerator | None = None,
        plugins: "Plugins | None" = None,
    ) -> "TrainedRun":
        """Open the run in a directory.

        Args:
            path: the run directory.
            options: command-line options that replace options of the run's config, such as
                `--sampler.steps=32`; options of the network itself cannot be replaced.
            average: the average of the weights over training ("ema") or the last ones ("raw").
            accelerator: device and precision; by default those of this machine, in the run's own
                `train.precision`.
            plugins: where parts come from; by default all that are installed.

        Raises:
            UsageError: there is no run there, or an option does not suit it.
        """
        directory = RunDirectory.existing(path)
        composition, _ = compose_saved(
            directory.config, options, plugins or load_plugins(), prog="TrainedRun.open", environ={}
        )
        accelerator = accelerator or runtime.start(composition.train.precision)
        return cls(directory, composition, accelerator, average=average)

    def with_average(self, average: str) -> "TrainedRun":
        """The same run with other weights; this object if it has these weights already."""
        if average == self.average:
            return self
        return TrainedRun(self.directory, self.composition, self.accelerator, average=average)

    def with_sampler(self, composition: Composition) -> "TrainedRun":
        """The same run under other options of sampling: another sampler, seed or prompt.

        The network is used again, unless the options ask for its other weights.

        Args:
            composition: of this run; it may differ in its sampler, its sample options and seed.
        """
        average = composition.sample.weights
        other = TrainedRun(self.directory, composition, self.accelerator, average=average)
        if average == self.average:
            sampler = composition.sampler_for(
                self.built.objective, tokenizer=self.tokenizer, label_names=self.labels
            )
            other._loaded = replace(self.built, sampler=sampler), self.step
        return other

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own tokenizer."""
        return load_tokenizer(self.directory.tokenizer)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels that the network reads; empty if it reads none."""
        return self.directory.label_names()

    @property
    def built(self) -> Built:
        """All parts of the run, with the weights of the newest whole checkpoint in the network.

        Raises:
            CheckpointError: there is no checkpoint, none is whole, or it is of another
                architecture.
        """
        return self._loaded[0]

    @property
    def step(self) -> int:
        """Number of updates of the loaded weights."""
        return self._loaded[1]

    @property
    def model(self) -> Model:
        return self.built.model

    @property
    def objective(self) -> Objective:
        """The objective, which holds the model."""
        return self.built.objective

    @property
    def sampler(self) -> Sampler:
        """The sampler that the options ask for."""
        return self.built.sampler

    @property
    def weights_file(self) -> Path:
        """The file of the loaded weights."""
        checkpoints = Checkpoints(self.directory.checkpoints, keep=1)
        return weights_file(checkpoints.path(self.step), self.average)

    @property
    def sample_length(self) -> int:
        """Tokens in a sample, unless `sample` is given another length."""
        return self.composition.sample.length or self.composition.data.length

    def data(self, splits: Sequence[str] | None = None) -> Data:
        """The run's own corpus as sequences of its tokens.

        Args:
            splits: splits that are needed; all by default.
        """
        return load_data(self.composition.data, self.tokenizer, self.labels, splits)

    def sample(
        self,
        number: int | None = None,
        *,
        watched: bool = False,
        onlooker: Onlooker | None = None,
        **options: Any,
    ) -> Samples:
        """Generate texts with the model; several processes divide them, and all have to call it.

        Args:
            number: number of texts; by default as `--sample.number`.
            watched: also record the trajectory of the first text.
            onlooker: sees that trajectory while it comes about.
            options: fields of `SampleOptions`, such as `prompt` or `length`; and `seed`.

        Raises:
            UsageError: an option is out of range or does not suit the sampler.
        """
        seed = options.pop("seed", self.composition.seed)
        asked = replace(self.composition.sample, **options)
        asked = asked if number is None else replace(asked, number=number)
        return generate(
            self.model,
            self.sampler,
            self.tokenizer,
            self.accelerator,
            asked,
            length=asked.length or self.composition.data.length,
            seed=seed,
            labels=self.labels,
            watched=watched,
            onlooker=onlooker,
        )

    def evaluate(self, **options: Any) -> Bound:
        """The bound on -log p of held-out text: of the run's own corpus, or of `data`.

        Args:
            options: fields of `EvaluateOptions`, such as `split`, `sequences` or `draws`; `seed`;
                and `data`, sequences of another text that were made with the run's tokenizer.
        """
        seed, data = options.pop("seed", self.composition.seed), options.pop("data", None)
        asked = replace(self.composition.evaluate, **options)
        split = (data or self.data((asked.split,))).split(asked.split)
        return evaluate(
            self.objective,
            split,
            self.accelerator,
            sequences=asked.sequences,
            batch_size=asked.batch_size,
            protocol=asked.protocol,
            seed=seed,
            draws=asked.draws,
        )

    def card(self, kind: str, *, units: str, facts: Mapping[str, Any]) -> Card:
        """The card of figures that were measured on this run, with the facts that all cards share.

        Args:
            kind: what was measured, in a word, such as "judged".
            units: a sentence on the units of the figures.
            facts: further facts on which the figures depend, by name.

        Raises:
            ValueError: `facts` has a name that all cards use already.
        """
        return card_of(
            self.composition,
            self.tokenizer,
            self.accelerator,
            kind=kind,
            step=self.step,
            units=units,
            facts={**facts, **self._mix},
        )

    @cached_property
    def _mix(self) -> dict[str, Any]:
        """What cards say of the corpora that the run was trained on, if they were several."""
        file = self.directory.environment
        return mix_facts(read_json(file)) if file.exists() else {}

    @cached_property
    def _loaded(self) -> tuple[Built, int]:
        checkpoint = Checkpoints(self.directory.checkpoints, keep=1).load()
        if checkpoint is None:
            path = self.directory.path
            raise CheckpointError(f"{path} has no checkpoint yet; continue it with --resume {path}")
        built = self.composition.build(
            self.tokenizer.vocab_size,
            len(self.labels),
            tokenizer=self.tokenizer,
            label_names=self.labels,
        )
        tensors = state.chosen(checkpoint.tensors, self.average)
        source = str(self.directory.checkpoints)
        if "optimizer" in checkpoint.tensors:
            load_weights(built.objective, tensors, source=source)
        else:  # imported: of the network alone
            load_weights(built.model.backbone, state.of_backbone(tensors), source=source)
        built.objective.to(self.accelerator.device).eval()
        asked = None if self.composition.train.compile is not False else False
        compile_networks(built.objective, asked, self.accelerator.device)
        return built, int(checkpoint.state["step"])


def load_start(model: Model, start: InitOptions) -> dict[str, Any]:
    """Load the weights that `--init` asks for into a model, and return which weights they are.

    Args:
        model: model as composed.
        start: a run and the step of its checkpoint, both resolved.

    Raises:
        CheckpointError: the checkpoint is gone or damaged, or it is of another architecture.
    """
    assert start.run is not None, "without a run there is no start"
    assert start.step is not None, "composition resolves the step"
    checkpoints = Checkpoints(RunDirectory(Path(start.run)).checkpoints, keep=1)
    source = str(checkpoints.path(start.step))
    tensors = state.chosen(checkpoints.at(start.step).tensors, start.weights)
    load_weights(model.backbone, state.of_backbone(tensors), source=source)
    # The schedule and the process are the same parts; weights of theirs are of the model too.
    for name, own in weights(model).items():
        if f"model.{name}" in tensors:
            own.data.copy_(tensors[f"model.{name}"])
    file = weights_file(checkpoints.path(start.step), start.weights)
    return {"run": start.run, "step": start.step, "weights": start.weights, "digest": digest(file)}


def load_pretrained(model: Model, tokenizer: Tokenizer) -> dict[str, Any]:
    """Gives a new model the weights from elsewhere that its backbone asks for, if any.

    Args:
        model: as it comes out of composition.
        tokenizer: the run's.

    Returns:
        Which weights they are, for `init.json`; empty where all weights are new.

    Raises:
        UsageError: the weights cannot be read, or are those of another network or tokenizer.
    """
    if not isinstance(model.backbone, FromElsewhere):
        return {}
    mask_id = model.process.mask_id if isinstance(model.process, Masking) else None
    tokens = None
    if isinstance(tokenizer, LibraryTokenizer):
        tokens = tokenizer.library.get_vocab(with_added_tokens=True)
    return dict(model.backbone.start(tokens, mask_id))


def weights_file(checkpoint: Path, average: str) -> Path:
    """The file of a checkpoint with the average of the weights (ema), or the last ones (raw)."""
    return checkpoint / f"{_GROUP[average]}.safetensors"


_GROUP = {"ema": "ema", "raw": "model"}
"""Tensors of a checkpoint, and their file: the average of the weights, or the last ones."""
