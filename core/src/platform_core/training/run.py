"""A run: training with its periodic bounds, samples and checkpoints, then the result.

    text -> Data -> Trainer.update x steps -> Bound and Samples of the average -> result.json

Used by `platform run`.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from platform_core.callback import Progress, Reaction
from platform_core.composition.compose import Built, Composition, require_start
from platform_core.composition.tracking import choose_trackers
from platform_core.data.mix import PackedMix, load_mix, require_corpora
from platform_core.data.sequences import load_data
from platform_core.data.streaming import open_stream
from platform_core.data.tokenizer import load_tokenizer
from platform_core.data.tokenizer.base import Tokenizer
from platform_core.draws import derive_seed
from platform_core.errors import UsageError
from platform_core.evaluation.bound import Bound, evaluate
from platform_core.evaluation.card import MIX, bound_facts, bound_kind, card_of, mix_facts
from platform_core.evaluation.figures import keep, levels_record
from platform_core.evaluation.ngram import NgramBits, baselines
from platform_core.evaluation.samples import Samples, generate, prompt_tokens
from platform_core.evaluation.trained import load_pretrained, load_start
from platform_core.guidance import label_number
from platform_core.record import metrics
from platform_core.record.bounds import NO_BOUND
from platform_core.record.cards import Card, Record
from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory
from platform_core.record.files import json_text, read_json, write_bytes, write_json, write_text
from platform_core.record.metrics import FINAL, MetricsLog
from platform_core.record.progress import working
from platform_core.record.results import write_result
from platform_core.record.tracker import Several, about, identities, open_trackers
from platform_core.runtime import accelerator as runtime
from platform_core.runtime import ranks
from platform_core.runtime.checkpoint import Checkpoint, CheckpointError, Checkpoints
from platform_core.runtime.saving import Saver, is_beside
from platform_core.runtime.signals import Interruption, Stopped
from platform_core.runtime.speed import peak_flops, profiled, training_flops
from platform_core.training.callbacks import Watchers
from platform_core.training.deferred import MOST_UNREAD
from platform_core.training.progress import Meter, Work
from platform_core.training.trainer import Trainer

TEXT = "text"
"""What a checkpoint's state calls the fingerprint of the text that it was trained on."""


class Run:
    """One run in its directory, new or resumed.

    Args:
        composition: the parts and options.
        directory: the run directory, which receives the record.
        resume: continue from the newest checkpoint there.

    Raises:
        UsageError: the run cannot start, for a reason that the composition alone does not show.
    """

    def __init__(self, composition: Composition, directory: RunDirectory, *, resume: bool) -> None:
        require_start(composition)
        known_to = identities(directory) if resume else {}
        self.trackers = choose_trackers(composition.track.to, composition.plugins, known_to)
        self.composition, self.directory = composition, directory
        self.accelerator = runtime.start(composition.train.precision)
        self._read_text(directory if resume else origin(composition))
        label_number(self.data.labels, composition.sample.label)
        working("making the network")
        self.built = build(
            composition,
            self.data.tokenizer.vocab_size,
            num_labels=len(self.data.labels),
            tokenizer=self.data.tokenizer,
            label_names=self.data.labels,
        )
        composition = self.composition = self._within_budget()
        prompt_tokens(
            composition.sample, self.data.tokenizer, self.sample_length, self.built.sampler
        )
        self.checkpoints = Checkpoints(directory.checkpoints, composition.train.keep_checkpoints)
        beside = is_beside(composition.train.checkpoint_writing, self.accelerator.device)
        self.saver = Saver(self.checkpoints, beside=beside)
        checkpoint = self.checkpoints.load() if resume else None
        self.started = self._start(checkpoint, resume=resume)
        ranks.ready()
        self.trainer = Trainer(
            self.built.objective,
            self.data,
            composition.train,
            accelerator=self.accelerator,
            seed=composition.seed,
            stream=self.stream,
            mix=self.mix,
        )
        self.watchers = Watchers(composition.make_callbacks())
        if checkpoint is not None:
            self.trainer.restore(checkpoint, source=str(directory.checkpoints))
            self.watchers.restore(checkpoint.state.get("callbacks", {}))
            self.checkpoints.kept = set(self.watchers.kept.values())
        self.saved_step = self.trainer.step
        """Of the newest checkpoint; 0 if there is none."""
        self._open_record(new=not resume)

    def _open_record(self, *, new: bool) -> None:
        """Prepares the directory, and opens the trackers and the log of metrics.

        Only the main process truncates and rewrites the record; two at once would conflict.
        """
        main = self.accelerator.is_main_process
        if main:
            self._prepare_directory(new=new)
        self.accelerator.wait_for_everyone()
        self.tracker = self._open_trackers()
        self.metrics = (
            MetricsLog.resume(self.directory.metrics, self.trainer.step)
            if main
            else MetricsLog(Path(os.devnull))
        )
        if main:
            self._say_start()

    def _read_text(self, known: RunDirectory | None) -> None:
        """Reads what is trained and evaluated on, in tokens and labels of a known run if any."""
        options = self.composition.data
        working("reading text")
        tokenizer = load_tokenizer(known.tokenizer) if known else None
        names = known.label_names() if known else ()
        held_out = self.composition.evaluate.split
        needed = (held_out,) if options.streaming else ("train", held_out)
        require_corpora(options)
        self.data = load_data(options, tokenizer, names, needed)
        self.mix = load_mix(options, self.data)
        self.stream = (
            open_stream(options, self.data.tokenizer)
            if options.streaming and self.mix is None
            else None
        )

    def _start(self, checkpoint: Checkpoint | None, *, resume: bool) -> dict[str, Any]:
        """Puts the first weights in place, unless a checkpoint has others; says which they are."""
        composition, init = self.composition, self.directory.init
        if checkpoint is not None:
            self._require_same(checkpoint)
            # Read now: at the end of a training, a damaged file must cost nothing.
            return read_json(init) if init.exists() else {}
        if composition.init.run:
            return load_start(self.built.model, composition.init)
        return load_pretrained(self.built.model, self.data.tokenizer)

    def _say_start(self) -> None:
        """Where, on what device, on what text, and how large the network is, on standard error."""
        names = self.composition.names
        weights = sum(parameter.numel() for parameter in self.built.model.parameters())
        working("")
        for line in (
            f"{self.directory.path}: {runtime.chosen(self.accelerator)}",
            *self._text_said(),
            f"{names['process']} with {names['backbone']}: {weights:,} weights, "
            f"{self.composition.train.steps:,} steps of {self.composition.train.batch_size} "
            f"sequences{f', from step {self.trainer.step:,} on' if self.trainer.step else ''}",
        ):
            print(line, file=sys.stderr)

    def _text_said(self) -> list[str]:
        """How much training text there is; of a mix, of each corpus, with its share."""
        data, kinds = self.composition.data, f"{self.data.tokenizer.vocab_size:,} kinds of tokens"
        if self.mix is None:
            train = "a stream" if data.streaming else f"{len(self.data.split('train')):,} sequences"
            return [f"{data.corpus}: {train} of {data.length} tokens, {kinds}"]
        return [
            f"a mix of corpora in sequences of {data.length} tokens, {kinds}:",
            *(
                f"  {share.part:.2%} {share.word}: {self.mix.said(number)}"
                for number, share in enumerate(self.mix.shares)
            ),
        ]

    @property
    def fingerprint(self) -> str:
        """Digest of the tokens that are trained on; of a mix, also of the shares."""
        return self.mix.fingerprint if self.mix else self.data.fingerprint

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends the checkpoint that is being written; closes the record and the trackers."""
        try:
            self.saver.wait()
        except (CheckpointError, OSError) as error:
            if kind is None or issubclass(kind, Stopped):
                raise
            print(f"platform: warning: {error}", file=sys.stderr)
        finally:
            self.metrics.close()
            self.tracker.close()
            if kind is None:
                ranks.keep_group()
            self.accelerator.end_training()

    @property
    def sample_length(self) -> int:
        """Number of tokens in a sample."""
        return self.composition.sample.length or self.composition.data.length

    @property
    def is_complete(self) -> bool:
        """Whether the last update was made, or a callback ended the training before it."""
        return self.trainer.step >= self.composition.train.steps or bool(self.watchers.stopped)

    @property
    def progress(self) -> Progress:
        """The progress of the training (step and number of steps), without figures."""
        return Progress(self.trainer.step, self.composition.train.steps, {})

    def train(self, interruption: Interruption) -> bool:
        """Trains to the end; if a signal asks to stop before, saves and returns False."""
        steps, step = self.composition.train.steps, self.trainer.step
        show = self.accelerator.is_main_process
        self.watchers.begin(self.progress)
        profile = self.composition.train.profile if show else 0
        with (
            closing(self.trainer),
            closing(Meter(step=step, steps=steps, show=show, work=self.work())) as meter,
            profiled(profile, self.directory.profile) as updated,
        ):
            interrupted = False
            while not self.is_complete and not interrupted:
                interrupted = self.advance(meter, interruption)
                updated()
        self.saver.wait()
        return self.is_complete

    def work(self) -> Work:
        """What an update costs."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        peak = peak_flops(device)
        return Work(flops=self.update_flops(), peak=peak and peak * processes, device=device)

    def update_flops(self) -> float | None:
        """FLOP of an update, in all processes; None for a network that cannot be counted."""
        length, model = self.composition.data.length, self.built.model
        flops = training_flops(
            model.backbone,
            length,
            time_conditioned=model.process.time_conditioned,
            labelled=bool(self.data.labels),
        )
        return flops and flops * self.composition.train.batch_size * length

    def _within_budget(self) -> Composition:
        """The composition with as many steps as `train.flops` pays for, if it is set.

        The config keeps the budget: a resumed training finds the same number of steps again.

        Raises:
            UsageError: the network cannot be counted, or the budget is below one step.
        """
        composition, budget = self.composition, self.composition.train.flops
        if not budget:
            return composition
        cost = self.update_flops()
        if not cost:
            raise UsageError(
                f"the operations of backbone {composition.names['backbone']} cannot be counted, so "
                "--train.flops has no meaning; give --train.steps"
            )
        if budget < cost:
            raise UsageError(
                f"--train.flops {budget:g} is less than one step, which costs {cost:.3g}; give more"
            )
        if self.accelerator.is_main_process:
            print(
                f"{budget:g} FLOP are {int(budget // cost):,} steps of {cost:.3g}", file=sys.stderr
            )
        train = replace(composition.train, steps=int(budget // cost), flops=0.0)
        return replace(composition, train=train)

    def advance(self, meter: Meter, interruption: Interruption) -> bool:
        """Makes an update and what is due after it; returns whether a signal asked to stop."""
        options, trainer = self.composition.train, self.trainer
        self.saver.check()
        start = time.perf_counter()
        trainer.launch()
        last = trainer.step == options.steps
        asked = interruption.signal is not None
        reads = not trainer.deferred or last or self.reads_at(trainer.step, asked=asked)
        updates = trainer.read() if reads else []
        trainer.seconds += time.perf_counter() - start
        for update in updates:
            meter.add(update)
        keep = False
        if due(trainer.step, options.log_every):
            figures: Mapping[str, float] = meter.metrics(updates[-1])
            self.log(figures, subset="train")
            keep |= self.react(self.watchers.after_update(self.progress_with(figures)))
        if due(trainer.step, options.evaluate_every) and not last:
            figures = self.look(meter)
            keep |= self.react(self.watchers.after_look(self.progress_with(figures)))
        interrupted = reads and self.anywhere(interruption.signal is not None)
        # A checkpoint is saved after the records of its step, which a resumed run keeps.
        ended = last or interrupted or bool(self.watchers.stopped)
        if due(trainer.step, options.checkpoint_every) or ended or keep:
            self.save()
        return interrupted

    def reads_at(self, step: int, *, asked: bool) -> bool:
        """Whether a step's figures are read, and so also whether any process was asked to stop.

        It is the same in all processes: of several, each tells the others when all read.
        """
        options = self.composition.train
        every = (options.log_every, options.evaluate_every, options.checkpoint_every)
        alone = self.accelerator.num_processes == 1
        return any(due(step, one) for one in every) or (asked and alone) or due(step, MOST_UNREAD)

    def progress_with(self, figures: Mapping[str, float]) -> Progress:
        """The progress of the training, with figures that were just measured."""
        return replace(self.progress, figures=figures)

    def react(self, reaction: Reaction) -> bool:
        """Logs the callbacks' figures; returns whether to keep this step's checkpoint."""
        if reaction.figures:
            self.log(reaction.figures, subset="callbacks")
        return reaction.keep

    def anywhere(self, here: bool) -> bool:
        """Whether a condition holds in any process; all must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return here
        flag = torch.tensor(float(here), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag) > 0)

    def save(self) -> None:
        """Writes a checkpoint, or begins to, unless this step has one."""
        if self.trainer.step > self.saved_step and self.accelerator.is_main_process:
            checkpoint = self.trainer.checkpoint()
            state = {**checkpoint.state, TEXT: self.fingerprint}
            if self.watchers.callbacks:
                state["callbacks"] = self.watchers.state()
            kept = set(self.watchers.kept.values())
            self.saver.save(self.trainer.step, replace(checkpoint, state=state), kept)
        self.saved_step = self.trainer.step
        self.accelerator.wait_for_everyone()

    def look(self, meter: Meter) -> Mapping[str, float]:
        """Evaluates the bound and samples during training; returns the figures of the bound."""
        bound = self.bound(self.composition.evaluate.on_the_way)
        samples, step = self.samples(), self.trainer.step
        figures = bound.curves() if bound else {}
        if bound:
            self.log(figures, subset=self.composition.evaluate.split)
            meter.say(f"step {step}: {bound.bits_per_character:.3f} bits per character")
        self.keep_samples(samples, f"step-{step:07d}")
        self.keep_figures(bound, samples, f"step-{step:07d}")
        meter.pause()
        return figures

    def bound(self, sequences: int) -> Bound | None:
        """The bound that `evaluate` options ask for, of so many sequences (0: all); None where the
        objective says that it has none.
        """
        options = self.composition.evaluate
        if not self.built.objective.has_bound:
            return None
        with self.weights(options.weights):
            return evaluate(
                self.built.objective,
                self.data.split(options.split),
                self.accelerator,
                sequences=sequences,
                batch_size=options.batch_size,
                protocol=options.protocol,
                seed=self.composition.seed,
                draws=options.draws,
            )

    def samples(self) -> Samples:
        """Samples drawn with the `sample` options."""
        with self.weights(self.composition.sample.weights):
            return generate(
                self.built.model,
                self.built.sampler,
                self.data.tokenizer,
                self.accelerator,
                self.composition.sample,
                length=self.sample_length,
                seed=self.composition.seed,
                labels=self.data.labels,
                watched=self.composition.track.trajectory,
            )

    @contextmanager
    def weights(self, which: str) -> Iterator[None]:
        """Puts averaged (ema) or last (raw) weights into the model while the block lasts."""
        if which == "raw":
            yield
            return
        with self.trainer.ema.applied():
            yield

    def log(self, metrics: Mapping[str, float], *, subset: str) -> None:
        """Writes metrics to metrics.jsonl and to the trackers."""
        if self.accelerator.is_main_process:
            self.metrics.log(metrics, step=self.trainer.step, subset=subset)
            self.tracker.log(metrics, step=self.trainer.step, subset=subset)

    def keep_samples(self, samples: Samples, name: str) -> None:
        """Writes the texts of samples to a file and to the trackers."""
        if self.accelerator.is_main_process:
            write_text(
                self.directory.samples / f"{name}.txt", BETWEEN_SAMPLES.join(samples.texts) + "\n"
            )
            self.tracker.text("samples", samples.texts, step=self.trainer.step)

    def keep_figures(self, bound: Bound | None, samples: Samples, name: str) -> None:
        """What is drawn of a look, as data, and as plots in the tracker."""
        if not self.accelerator.is_main_process:
            return
        evaluated = self.composition.evaluate
        records = [samples.trajectory.record()] if samples.trajectory else []
        if bound and bound.levels:
            records.append(levels_record(bound, evaluated.split, evaluated.protocol))
        for record in records:
            path = self.directory.figures / f"{record['kind']}-{name}.json"
            keep({"step": self.trainer.step, **record}, path)
            self.tracker.figure(path, step=self.trainer.step)

    def finish(self) -> dict[str, Any]:
        """The final bound, baselines and samples; writes `result.json`."""
        start = time.perf_counter()
        options = self.composition.evaluate
        working("evaluating")
        bound = self.bound(options.sequences)
        working("sampling")
        samples = self.samples()
        working("counting n-grams")
        # N-grams are not counted in streamed text.
        streamed = self.composition.data.streaming
        mix = self.mix if isinstance(self.mix, PackedMix) else None
        ngrams = None if streamed else baselines(self.data, options.split, options.sequences, mix)
        # Not a point of the curve on the way, which is of fewer sequences.
        if bound:
            self.log(bound.curves(), subset=FINAL)
        self.keep_samples(samples, "final")
        self.keep_figures(bound, samples, "final")
        result = self._result(bound, samples, ngrams, time.perf_counter() - start)
        working("")
        if self.accelerator.is_main_process:
            write_result(self.directory, result)
        return result

    def _result(
        self, bound: Bound | None, samples: Samples, ngrams: NgramBits | None, seconds: float
    ) -> dict[str, Any]:
        figures = {
            **_figures(bound, self.composition.names["objective"]),
            **({f"{name}_bits": value for name, value in asdict(ngrams).items()} if ngrams else {}),
            "steps": self.trainer.step,
            **({"stopped": self.watchers.stopped} if self.watchers.stopped else {}),
            "seconds": self.trainer.seconds,
            "seconds_evaluating": seconds,
            "peak_rss_bytes": runtime.peak_rss_bytes(),
            "parameters": sum(p.numel() for p in self.built.model.parameters()),
        }
        return Record(figures, self._card(bound, samples)).to_dict()

    def _card(self, bound: Bound | None, samples: Samples) -> Card:
        """The card of the result; it also says which run and weights this run started from."""
        composition = self.composition
        started = {"init": self.started} if self.started else {}
        mix = mix_facts({MIX: self.mix.facts()} if self.mix else {})
        sampler = {
            "nfe": samples.nfe,
            "seconds": samples.seconds,
            "number": len(samples.texts),
            "label": composition.sample.label,
            "guidance": composition.sample.guidance,
        }
        facts = (
            bound_facts(bound, composition.evaluate, composition.data, self.data)
            if bound
            else {"evaluate": asdict(composition.evaluate), "data": asdict(composition.data)}
        )
        return card_of(
            composition,
            self.data.tokenizer,
            self.accelerator,
            kind=bound_kind(bound) if bound else NO_BOUND,
            step=self.trainer.step,
            units="standard_error and levels in nats per token; *_bits per character of the same "
            "text, by n-grams of its tokens",
            facts={**facts, "sampler": sampler, **started, **mix},
        )

    def _prepare_directory(self, *, new: bool) -> None:
        if not new:
            metrics.read(self.directory.metrics)  # a damaged one is refused before anything changes
            self.checkpoints.prune()
        if new:
            self.directory.create()
            write_json(self.directory.tokenizer, self.data.tokenizer.to_dict())
            if self.data.labels:
                labels = {"label": self.composition.data.label, "names": self.data.labels}
                write_json(self.directory.labels, labels)
        if self.started:
            write_json(self.directory.init, self.started)
        if not new:
            self._keep_history()
        write_json(self.directory.environment, self._environment())
        write_text(self.directory.config, self.composition.config)

    def _environment(self) -> dict[str, Any]:
        machine = runtime.describe(self.accelerator, self.composition.provenance())
        return {**machine, **runtime.commit(), **({MIX: self.mix.facts()} if self.mix else {})}

    def _keep_history(self) -> None:
        """Keeps the options and the machine of the run so far, where others follow."""
        now = {
            self.directory.config: self.composition.config,
            self.directory.environment: json_text(self._environment()) + "\n",
        }
        for path, content in now.items():
            before = path.read_bytes() if path.exists() else b""
            if before not in (b"", content.encode()):
                kept = f"until-step-{self.trainer.step:07d}-{sha256(before).hexdigest()[:8]}"
                write_bytes(self.directory.history / f"{kept}{path.suffix}", before)

    def _require_same(self, checkpoint: Checkpoint) -> None:
        """Refuses to go on with what a checkpoint was not trained on.

        Raises:
            UsageError: it is of other text, or of more steps than are wanted.
        """
        done, steps = checkpoint.state["step"], self.composition.train.steps
        if done > steps:
            raise UsageError(
                f"the run has made {done} steps already, more than --train.steps {steps}; give at "
                f"least {done}, or leave it out"
            )
        if checkpoint.state.get(TEXT, self.fingerprint) != self.fingerprint:
            data = self.composition.data
            what = f"text of corpus {data.corpus}{f' ({data.path})' if data.path else ''} is"
            where = "--data.path says where it is now"
            if self.mix is not None:
                what = f"mix of {data.corpus} and {data.mix}, its texts or their shares, is"
                where = "--data.path and --data.mix say where the texts are now"
            raise UsageError(
                f"the {what} not the one that the run was trained on; bring it back ({where}), or "
                f"start a new run from its weights with --init {self.directory.path}"
            )

    def _open_trackers(self) -> Several:
        if not self.accelerator.is_main_process:
            return Several({})
        note = self.trackers.note(self.directory.path.parent)
        if note:
            print(f"note: {note}", file=sys.stderr)
        said = about(self.directory, runtime.versions(), self.trainer.step)
        return open_trackers(self.trackers.kinds, self.directory, said)


def _figures(bound: Bound | None, objective: str) -> dict[str, Any]:
    """What the result has of a bound, or why it has nothing."""
    if bound is None:
        return {"note": f"the objective {objective} has no bound on -log p, so none was measured"}
    return {
        "bits_per_character": bound.bits_per_character,
        "bits_per_token": bound.bits_per_token,
        "standard_error": bound.standard_error,
        "nats_per_token": bound.nats_per_token,
        "perplexity": bound.perplexity,
        "tokens": bound.tokens,
        "characters": bound.characters,
        "levels": [asdict(level) for level in bound.levels],
    }


def due(step: int, every: int) -> bool:
    """Whether an event that is due every so many steps is due now; `every` of 0 means never."""
    return every > 0 and step % every == 0


def origin(composition: Composition) -> RunDirectory | None:
    """The run whose weights and tokenizer a new run starts from; None without `--init`."""
    return RunDirectory(Path(composition.init.run)) if composition.init.run else None


def build(
    composition: Composition,
    vocab_size: int,
    *,
    num_labels: int,
    tokenizer: Tokenizer | None = None,
    label_names: Sequence[str] = (),
) -> Built:
    """The composition's objects, with weights that depend on the seed alone."""
    torch.manual_seed(derive_seed(composition.seed, "weights"))
    return composition.build(vocab_size, num_labels, tokenizer=tokenizer, label_names=label_names)
