"""Sampling: seconds, memory, and the share of the time that is spent outside the network.

duo, mdlm                   8 reverse steps and the last call
ar                          twice the length, with a key-value cache and without
mdlm at 1,000 steps         ancestral, with its cache, and first-hitting: one law, three costs
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import nn

from platform_bench import Case, Figures, Size
from platform_bench.machine import composed, device_of, peak_bytes, resident_bytes, settle
from platform_core.backbone import Backbone, Incremental, Reader
from platform_core.model import Model
from platform_core.types import Hidden, Inputs, Labels, Logits, Noise, Tokens

TITLE = "samples of an untrained network, fp32; outer: outside the network"

COLUMNS = {
    "nfe": ("NFE", "{:.0f}"),
    "seconds": ("seconds", "{:.2f}"),
    "outside": ("outer %", "{:.1f}"),
    "peak_gigabytes": ("peak GB", "{:.3g}"),
    "walk_gigabytes": ("walk GB", "{:.3g}"),
}

MANY = "--sampler.steps=1000"

PATHS: Mapping[str, Sequence[str]] = {
    "duo, 8 steps": ["--process=duo", "--sampler.steps=8"],
    "mdlm, 8 steps": ["--process=mdlm", "--sampler.steps=8"],
    "ar, cache": ["--process=ar"],
    "ar, no cache": ["--process=ar"],
    "mdlm, ancestral": ["--process=mdlm", MANY],
    "mdlm, cached-ancestral": ["--process=mdlm", "--sampler=cached-ancestral", MANY],
    "mdlm, first-hitting": ["--process=mdlm", "--sampler=first-hitting"],
}
"""Command-line words that choose the process and the sampler of each case."""


def cases(size: Size) -> Iterator[Case]:
    """One case for each of `PATHS`."""
    for path in PATHS:
        long = replace(size, length=2 * size.length)
        yield Case("sampling", path, long if path.startswith("ar") else size)


def measure(case: Case) -> Figures:
    """Cost of one batch of samples, after a short batch that warms up."""
    built = composed(PATHS[case.path], case.size)
    device = device_of()
    model, watch = built.model.to(device).eval(), Stopwatch()
    timed = (TimedIncremental if case.path == "ar, cache" else Timed)(model.backbone, watch)
    seen = Model(model.process, model.schedule, model.parameterization, timed)
    with torch.no_grad():
        built.sampler(seen, (case.size.batch, 2), torch.Generator(device).manual_seed(0))
        before, watch.seconds, start = resident_bytes(), 0.0, time.perf_counter()
        shape = (case.size.batch, case.size.length)
        sample = built.sampler(seen, shape, torch.Generator(device).manual_seed(1))
    settle()
    seconds = time.perf_counter() - start
    return {
        "nfe": sample.nfe,
        "seconds": seconds,
        "outside": 100 * (1 - watch.seconds / seconds),
        "peak_gigabytes": peak_bytes() / 1e9,
        "walk_gigabytes": (peak_bytes() - before) / 1e9,
    }


class Stopwatch:
    """Context manager that adds up the seconds spent within it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        settle()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        settle()
        self.seconds += time.perf_counter() - self._start


class Timed(Backbone):
    """A wrapped backbone under a stopwatch, without a cache."""

    def __init__(self, backbone: Backbone, watch: Stopwatch) -> None:
        super().__init__()
        self.backbone, self.watch = backbone, watch
        self._decoder = TimedDecoder(backbone.decoder, watch)

    @property
    def decoder(self) -> nn.Module:
        """The wrapped backbone's last layer under the same stopwatch."""
        return self._decoder

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        with self.watch:
            return self.backbone.encode(inputs, sigma)


@final
class TimedDecoder(nn.Module):
    """A last layer under a stopwatch."""

    def __init__(self, decoder: nn.Module, watch: Stopwatch) -> None:
        super().__init__()
        self.decoder, self.watch = decoder, watch

    def forward(self, hidden: Hidden) -> Logits:
        with self.watch:
            logits: Logits = self.decoder(hidden)
        return logits


@final
class TimedIncremental(Timed, Incremental):
    """A wrapped backbone under a stopwatch, with the backbone's own cache."""

    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        assert isinstance(self.backbone, Incremental), "only such a backbone has a cache"
        return TimedReader(self.backbone.reader(length, labels), self.watch)


@final
class TimedReader(Reader):
    """A wrapped reader under a stopwatch."""

    def __init__(self, reader: Reader, watch: Stopwatch) -> None:
        self.reader, self.watch = reader, watch

    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        with self.watch:
            return self.reader.read(tokens, sigma)

    def look(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        with self.watch:
            return self.reader.look(tokens, sigma)
