"""The progress bar of a run, with loss, speed and time left."""

import sys
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

from platform_core.runtime.speed import peak_device_bytes
from platform_core.training.trainer import Update


@dataclass(frozen=True)
class Work:
    """What an update costs, to say how well a device is used."""

    flops: float | None = None
    """Of an update, over all processes; None if they cannot be counted."""
    peak: float | None = None
    """FLOP/s that all devices can do together; None if that is not known."""
    device: torch.device = torch.device("cpu")

    def metrics(self, updates_per_second: float, waiting: float) -> dict[str, float]:
        """FLOP/s, share of the peak, memory of the GPU, and the share of time without data."""
        found = {"data_share": waiting}
        if self.flops is not None:
            found["flops_per_second"] = self.flops * updates_per_second
            if self.peak is not None:
                found["flops_utilisation"] = found["flops_per_second"] / self.peak
        memory = peak_device_bytes(self.device)
        return found if memory is None else {**found, "peak_device_bytes": memory}


@dataclass
class Window:
    """Sums over the updates since the last line of metrics.jsonl."""

    loss: float = 0.0
    tokens: int = 0
    updates: int = 0
    moved: int = 0
    gradient_norm: float = 0.0
    waiting: float = 0.0
    started: float = 0.0

    def add(self, update: Update) -> None:
        """Counts one more update."""
        self.loss += update.loss * update.tokens
        self.tokens += update.tokens
        self.updates += 1
        if update.is_finite:
            self.moved += 1
            self.gradient_norm += update.gradient_norm
        self.waiting += update.waiting

    def metrics(self, update: Update, work: Work) -> dict[str, float]:
        """Means over the window, the last learning rate, and how fast the training is."""
        seconds = time.perf_counter() - self.started
        return {
            "loss": self.loss / self.tokens,
            "gradient_norm": self.gradient_norm / max(1, self.moved),
            "learning_rate": update.learning_rate,
            "tokens_per_second": self.tokens / seconds,
            **work.metrics(self.updates / seconds, self.waiting / seconds),
        }


class Meter:
    """The progress bar of a run and its window of updates; the bar is hidden unless `show`."""

    def __init__(self, *, step: int, steps: int, show: bool, work: Work) -> None:
        self._work = work
        # In a file, each refresh of the bar is a line of its own, so it refreshes less often there.
        often = 0.1 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(
            total=steps,
            initial=step,
            disable=not show,
            unit="step",
            dynamic_ncols=True,
            mininterval=often,
            maxinterval=often,
        )
        self._window = Window(started=time.perf_counter())

    def add(self, update: Update) -> None:
        """Moves the bar by one update."""
        self._window.add(update)
        self._bar.update()

    def metrics(self, update: Update) -> dict[str, float]:
        """The metrics of the updates since the last call, which the bar then shows."""
        metrics = self._window.metrics(update, self._work)
        self._window = Window(started=time.perf_counter())
        said = f"loss {metrics['loss']:.3f}, {metrics['tokens_per_second']:,.0f} tokens/s"
        if "flops_utilisation" in metrics:
            said += f", {metrics['flops_utilisation']:.0%} of the peak"
        self._bar.set_postfix_str(said, refresh=False)
        return metrics

    def pause(self) -> None:
        """Restarts the window, so that the time of an evaluation does not count in the speed."""
        self._window = Window(started=time.perf_counter())

    def say(self, line: str) -> None:
        """Prints a line above the bar, unless the bar is hidden."""
        if not self._bar.disable:
            self._bar.write(line)

    def close(self) -> None:
        self._bar.close()
