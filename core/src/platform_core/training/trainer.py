"""Training: one optimizer update after another, exactly resumable.

The sequences, the random draws and the learning rate of an update are functions of its number. So
the state of a run is its weights, their average, the optimizer's moments, and a step.
"""

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from platform_core.composition.options import TrainOptions
from platform_core.data.mix import Mix
from platform_core.data.sequences import Data
from platform_core.data.streaming import Stream
from platform_core.draws import Draws, derive_seed
from platform_core.errors import UsageError
from platform_core.model import first_not_finite, weights
from platform_core.objective import Following, Loss, Objective
from platform_core.registry.loading import installed
from platform_core.runtime import state
from platform_core.runtime.ahead import PATIENCE
from platform_core.runtime.checkpoint import Checkpoint, CheckpointError, load_weights
from platform_core.runtime.network import compile_networks, recompute_activations
from platform_core.training import deferred
from platform_core.training.deferred import MOST_UNREAD, Gate, Launched, can_hold_back
from platform_core.training.deferred import read as read_figures
from platform_core.training.ema import Ema
from platform_core.training.feed import Feed, Place
from platform_core.training.optimizers import make_optimizer
from platform_core.types import Batch


@dataclass(frozen=True)
class Update:
    """The figures of one optimizer update."""

    loss: float
    """Nats per counted token, over the global batch."""
    gradient_norm: float
    """Norm of the whole gradient before clipping; not finite where fp16 was too narrow for it, so
    that the weights stayed as they were and the scale of the loss was lowered.
    """
    learning_rate: float
    tokens: int
    waiting: float = field(compare=False)
    """Seconds until the data were there: to fetch them, or to wait for those fetched ahead."""

    @property
    def is_finite(self) -> bool:
        """Whether the gradient was finite, and so moved the weights."""
        return math.isfinite(self.gradient_norm)


class Trainer:
    """An objective, its optimizer and the average of its weights.

    Args:
        objective: the loss to minimise; moved to the accelerator's device.
        data: the source of sequences.
        options: the options of the optimisation.
        accelerator: device, precision and processes.
        seed: seed of every random draw.
        stream: training sequences in place of those of the data.
        mix: training sequences of several corpora, in place of both.

    Raises:
        UsageError: the batch does not divide among processes and micro-batches.
    """

    def __init__(
        self,
        objective: Objective,
        data: Data,
        options: TrainOptions,
        *,
        accelerator: Accelerator,
        seed: int,
        stream: Stream | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.options, self.accelerator, self.seed = options, accelerator, seed
        place = Place(accelerator.process_index, accelerator.num_processes, accelerator.device)
        self.feed = Feed(data, options, place, seed=seed, stream=stream, mix=mix)
        self.objective = objective.to(accelerator.device)
        if options.checkpoint_activations:
            backbone = objective.model.backbone
            recompute_activations(backbone, type(backbone).__name__)
        compile_networks(self.objective, options.compile, accelerator.device)
        self.trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}
        self.ema = Ema(self.trained, options.ema_decay)
        self.optimizer = make_optimizer(self.trained, options, installed())
        self.prepared, self._scaled = accelerator.prepare(self.objective, self.optimizer)
        self.step = 0
        self.seconds = 0.0
        # Under fp16 a gradient that is not finite is no error, and the scale has to follow at once.
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler
        self.deferred = accelerator.device.type in deferred.DEFERRED_ON and self.scaler is None
        self._gate = Gate(accelerator.device)
        self._unread: list[Launched] = []
        self._read: list[Update] = []
        self._tell_objective()

    def update(self) -> Update:
        """Makes one optimizer update and reads its figures.

        Raises:
            UsageError: the loss or the gradient is not finite.
        """
        self.launch()
        return self.read()[-1]

    def launch(self) -> None:
        """Makes one optimizer update; `read` has its figures.

        On a GPU the host does not wait for them, so `read` is where an error is seen.

        Raises:
            UsageError: the loss or the gradient is not finite, and figures are read at once.
        """
        rate = learning_rate(self.options, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        start = time.perf_counter()
        batches = self.feed.take(self.step)
        waiting = time.perf_counter() - start
        tokens = sum((batch.mask.sum() for batch in batches.values()), torch.zeros(()))
        tokens = self.accelerator.reduce(tokens.to(self.accelerator.device, non_blocking=True))
        loss = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        self.objective.train()
        for number, (first, batch) in enumerate(batches.items(), start=1):
            last = number == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.prepared):
                loss += self._descend(batch, first, self.accelerator.num_processes / tokens)
        limit = self.options.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.trained.values(), limit)
        self._unread.append(Launched(self.step, loss, norm, tokens, rate, waiting))
        if self.deferred and can_hold_back(self.optimizer):
            self._gate.look(norm)
            self._gate.step(self.optimizer)
        else:
            self._collect()
            # A scaler leaves the step out if the gradient is not finite, and then lowers the scale.
            (self.optimizer if self.scaler is None else self._scaled).step()
        self.optimizer.zero_grad()
        if self.scaler is None or self._read[-1].is_finite:
            self.ema.update(self._gate.open if self.deferred else None)
        self.step += 1
        self._tell_objective()
        if len(self._unread) >= MOST_UNREAD:
            self._collect()

    def read(self) -> list[Update]:
        """The updates since the last call, in order; all processes call this after the same one.

        Raises:
            UsageError: the loss or the gradient of one was not finite. Weights, optimizer, average
                and `step` are those from before it.
        """
        self._collect()
        read, self._read = self._read, []
        return read

    def _collect(self) -> None:
        """Reads the figures of updates that were not read yet."""
        launched, self._unread = self._unread, []
        if not launched:
            return
        figures = read_figures(launched, self.accelerator)
        for one, (loss, norm, tokens) in zip(launched, figures, strict=True):
            update = Update(loss, norm, one.learning_rate, tokens, one.waiting)
            if not math.isfinite(loss) or not (update.is_finite or self._scale_can_fall()):
                self._hold_back(one.step)
                raise self._not_finite(loss, norm)
            self._read.append(update)

    def _scale_can_fall(self) -> bool:
        """Whether a gradient may be too large for fp16 only because the loss was scaled up."""
        return self.scaler is not None and self.scaler.get_scale() > 1

    def _hold_back(self, step: int) -> None:
        """Takes back the counts of the updates from `step` on, which changed nothing else."""
        self.ema.updates -= self.step - step
        self.step, self._read, self._gate = step, [], Gate(self.accelerator.device)

    def _not_finite(self, loss: float, norm: float) -> UsageError:
        name = first_not_finite(self.trained)
        weight = f", because the weight {name} is not finite" if name else ""
        return UsageError(
            f"step {self.step}: the loss is {loss:g} and the gradient's norm {norm:g}"
            f"{weight}; lower --train.learning_rate (now {self.options.learning_rate:g}) and "
            "resume"
        )

    def checkpoint(self) -> Checkpoint:
        """A checkpoint of everything that the next update depends on.

        Raises:
            UsageError: a weight is not finite, so that nothing could go on from the checkpoint, or
                an update was not, whose figures were not read yet.
        """
        self._collect()
        if (wrong := first_not_finite(self.trained)) is not None:
            raise UsageError(
                f"step {self.step}: the weight {wrong} is not finite, so no checkpoint is kept of "
                f"it; lower --train.learning_rate (now {self.options.learning_rate:g}) or raise "
                f"--train.eps (now {self.options.eps:g})"
            )
        groups: dict[str, Mapping[str, Tensor]] = {
            **state.groups(weights(self.objective), self.ema.shadow),
            "optimizer": {
                f"{name}/{key}": value
                for name, parameter in self.trained.items()
                for key, value in self.optimizer.state[parameter].items()
            },
        }
        plain: dict[str, Any] = {
            "step": self.step,
            "ema_updates": self.ema.updates,
            "seconds": self.seconds,
            "sequences_seen": self.step * self.options.batch_size,
        }
        if self.scaler is not None:
            plain["scaler"] = self.scaler.state_dict()
        if self.feed.state is not None:
            plain["stream"] = self.feed.state
        return Checkpoint(groups, plain)

    def restore(self, checkpoint: Checkpoint, *, source: str) -> None:
        """Restores the state of a run from a checkpoint.

        Raises:
            CheckpointError: the checkpoint is of another architecture, or was imported without an
                optimizer.
        """
        if "optimizer" not in checkpoint.tensors:
            raise CheckpointError(
                f"{source} holds imported weights without an optimizer, so training cannot resume"
            )
        load_weights(self.objective, state.last(checkpoint.tensors), source=source)
        self.ema.restore(state.averaged(checkpoint.tensors), checkpoint.state["ema_updates"])
        for key, value in checkpoint.tensors["optimizer"].items():
            name, field = key.rsplit("/", 1)
            parameter = self.trained[name]
            self.optimizer.state[parameter][field] = value.to(parameter.device)
        if self.scaler is not None and "scaler" in checkpoint.state:
            self.scaler.load_state_dict(checkpoint.state["scaler"])
        if self.feed.stream is not None:
            self.feed.restore(checkpoint.state["stream"])
        self.step = checkpoint.state["step"]
        self.seconds = checkpoint.state["seconds"]

    def close(self) -> None:
        """Ends the thread that fetches batches, if there is one; another update begins it again."""
        self.feed.close(PATIENCE)

    def _tell_objective(self) -> None:
        if isinstance(self.objective, Following):
            average = state.of_backbone(self.ema.shadow)
            self.objective.after_update(self.step, average)

    def _descend(self, batch: Batch, first: int, scale: Tensor) -> Tensor:
        device = self.accelerator.device
        torch.manual_seed(derive_seed(self.seed, "dropout", self.step, first))
        draws = Draws.derive(
            self.seed,
            "train",
            step=self.step,
            first=first,
            total=self.options.batch_size,
            device=device,
        )
        loss: Loss = self.prepared(batch.to(device, non_blocking=True), draws)
        if self.deferred:
            # Every process must see in the gradient, which all share, that one loss is not finite.
            scale = torch.where(loss.total.detach().isfinite(), scale, torch.nan)
        self.accelerator.backward(loss.total * scale)
        return loss.total.detach()


def learning_rate(options: TrainOptions, step: int) -> float:
    """The learning rate of update number `step`, counted from 0."""
    warm = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    if step < options.warmup_steps:
        return options.learning_rate * warm
    return options.learning_rate * _decayed(options, step)


def _decayed(options: TrainOptions, step: int) -> float:
    """The share of the learning rate that is left at a step after warm-up."""
    begin = options.warmup_steps
    if options.decay == "wsd":
        begin = max(begin, options.steps - round(options.decay_share * options.steps))
    progress = (step - begin) / max(1, options.steps - begin)
    progress = min(1.0, max(0.0, progress))
    above = {
        "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "wsd": 1 - progress,
    }[options.decay]
    return options.decay_floor + (1 - options.decay_floor) * above
