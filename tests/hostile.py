"""Hostile and damaged checkpoints: seeded bytes for every reader of files from elsewhere.

    cases(seed, files)     truncated, flipped, overwritten; wrong headers; huge sizes; pickles that
                           call, nest, collide or fill the memory; zip archives that unpack too much
    attempt(read, ...)     what a reader does with one of them, in a child process with limits

A reader may take a case or refuse it with one line. It may not show a traceback, take longer than
`SECONDS`, need more than `MEMORY` bytes, run anything, or leave a file.
"""

import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SECONDS = 20
MEMORY = 2 * 2**30
"""Bytes that a reader may need besides what the process has when it begins."""

MARKER = "HOSTILE-WAS-HERE"
"""Name of the file that a pickle makes if it is executed, in the current directory."""

Verdict = Literal["taken", "refused", "traceback", "hang", "memory", "executed", "left files"]


@dataclass(frozen=True)
class Case:
    """One file in place of a whole one.

    Args:
        name: what was done.
        file: which of the files it replaces.
        content: its bytes.
    """

    name: str
    file: str
    content: bytes


def cases(seed: int, files: Mapping[str, bytes], count: int) -> Iterator[Case]:
    """So many cases made of whole files: name -> content. The same seed gives the same cases."""
    drawn = random.Random(seed)
    names = sorted(files)
    for number in range(count):
        file = names[number % len(names)]
        kinds = KINDS[_kind(file)]
        name, damage = kinds[number // len(names) % len(kinds)]
        yield Case(f"{number}: {name} of {file}", file, damage(drawn, files[file]))


def _kind(file: str) -> str:
    return {".json": "json", ".safetensors": "safetensors"}.get(Path(file).suffix, "torch")


def cut(drawn: random.Random, whole: bytes) -> bytes:
    """A file that was downloaded in part."""
    return whole[: drawn.randrange(len(whole))]


def flipped(drawn: random.Random, whole: bytes) -> bytes:
    """One to eight bits are others, most often near the beginning or the end."""
    spoilt = bytearray(whole)
    for _ in range(drawn.randint(1, 8)):
        near = min(len(whole), 2000)
        place = drawn.choice([drawn.randrange(near), -1 - drawn.randrange(near)])
        spoilt[place] ^= 1 << drawn.randrange(8)
    return bytes(spoilt)


def overwritten(drawn: random.Random, whole: bytes) -> bytes:
    """A stretch of other bytes."""
    start, length = drawn.randrange(len(whole)), drawn.randint(1, 200)
    filling = drawn.choice([b"\x00" * length, b"\xff" * length, drawn.randbytes(length)])
    return whole[:start] + filling + whole[start + length :]


def shuffled(drawn: random.Random, whole: bytes) -> bytes:
    """A stretch twice, left out, or at another place."""
    a, b = sorted(drawn.randrange(len(whole) + 1) for _ in range(2))
    return drawn.choice([whole[:b] + whole[a:], whole[:a] + whole[b:], whole[b:] + whole[:b]])


def nothing(drawn: random.Random, _: bytes) -> bytes:
    """No file of this kind at all."""
    return drawn.choice([b"", b"\x00", b"PK", b"PK\x05\x06" + b"\x00" * 18, b"null", b"[]", b"{}"])


def header(drawn: random.Random, whole: bytes) -> bytes:
    """A safetensors file whose header says something else."""
    (length,) = struct.unpack("<Q", whole[:8])
    said = json.loads(whole[8 : 8 + length])
    name = drawn.choice([key for key in said if key != "__metadata__"])
    size = len(whole) - 8 - length
    entry = drawn.choice(
        [
            {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
            {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [float("nan")], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
            {"dtype": "F32", "shape": [1] * 500, "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 2**62]},
            {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, size]},
            {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
            {"shape": [1]},
            [],
            None,
            "x" * 100_000,
        ]
    )
    changed = dict(said)
    changed[drawn.choice([name, "__metadata__", "other", ""])] = entry
    text = json.dumps(changed).encode()
    announced = drawn.choice([len(text), len(text), 2**63, 2**32, 0, len(text) + 5])
    return struct.pack("<Q", announced) + text + whole[8 + length :]


def nested_header(drawn: random.Random, whole: bytes) -> bytes:
    """A safetensors header that nests, or has a name ten thousand times."""
    depth = drawn.choice([100, 10_000, 1_000_000])
    text = drawn.choice([b"[" * depth, b'{"a":' * depth, b"{" + b'"a":1,' * depth + b'"a":1}'])
    return struct.pack("<Q", len(text)) + text + whole[-64:]


STRANGE: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**12,
    10**400,
    float("nan"),
    float("inf"),
    1e308,
    0.5,
    "",
    "x" * 5000,
    "../../etc/passwd",
    "\x00\x1b[31m",
    [],
    {},
    [1, [2]],
    {"a": 1},
)


def values(drawn: random.Random, whole: bytes) -> bytes:
    """A JSON object in which one to three values are others, or missing."""
    content: Any = json.loads(whole)
    for _ in range(drawn.randint(1, 3)):
        inner, key = _place(drawn, content)
        if key is None:
            continue
        if drawn.random() < 0.2:
            del inner[key]
        else:
            inner[key] = drawn.choice(STRANGE)
    return json.dumps(content).encode()


def _place(drawn: random.Random, content: Any) -> tuple[Any, Any]:
    """A container in a JSON value, and one of its keys."""
    inner, key = content, None
    while isinstance(inner, dict | list) and inner:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = drawn.choice(keys)
        if not isinstance(inner[key], dict | list) or not inner[key] or drawn.random() < 0.5:
            return inner, key
        inner = inner[key]
    return inner, key


def texts(drawn: random.Random, whole: bytes) -> bytes:
    """JSON that nests, has endless digits, is in another encoding, or says a key again."""
    return drawn.choice(
        [
            b"[" * 100_000,
            b'{"a":' * 100_000,
            whole.rstrip()[:-1] + b', "x": 1' + b"0" * 10_000 + b"}",
            whole.rstrip()[:-1] + b', "x": 1e999999}',
            b"\xef\xbb\xbf" + whole,
            whole.decode().encode("utf-16"),
            whole.replace(b'"', b"'"),
            whole + whole,
            whole.rstrip()[:-1] + b', "model_type": 5, "model": [], "composition": {}}',
            whole.replace(b"1", b"1000000000000", drawn.randint(1, 3)),
            b'{"' + b"a" * 100_000 + b'": 1}',
            b'"\\ud800"',
            b"[" + b"[]," * 100_000 + b"[]]",
        ]
    )


class Call:
    """Pickles to a call of a function, which makes the file `MARKER`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def calls(drawn: random.Random, whole: bytes) -> bytes:
    """A pickle that calls, alone or inside of a checkpoint."""
    call = drawn.choice(
        [
            Call(os.system, f"touch {MARKER}"),
            Call(eval, f"open({MARKER!r}, 'w')"),
            Call(exec, f"open({MARKER!r}, 'w')"),
            Call(os.mkdir, MARKER),
        ]
    )
    held = drawn.choice([call, [call], {"state_dict": {"a": call}}, {"state_dict": call}])
    pickled = pickle.dumps(held, protocol=drawn.randint(0, 5))
    return drawn.choice([pickled, packed(pickled), packed(b"\x80\x02" + pickled)])


def programs(drawn: random.Random, _: bytes) -> bytes:
    """A pickle of random instructions with random arguments."""
    import pickletools

    pickled = b"\x80\x04"
    for _ in range(drawn.choice([5, 50, 500, 5000])):
        opcode = drawn.choice(pickletools.opcodes)
        pickled += opcode.code.encode("latin-1")
        if opcode.arg is not None:
            pickled += drawn.choice(
                [b"\x01", b"\x00\x00\x00\x00", b"5\n", b"os\nsystem\n", b"\xff" * 8]
            )
    return packed(pickled + b".")


def heavy(drawn: random.Random, _: bytes) -> bytes:
    """A pickle of a few megabytes that needs much time or memory if it is believed."""
    million = drawn.choice([10_000, 300_000])
    modulus = 2**61 - 1
    numbers = b"".join(
        b"\x8a\x0a" + (modulus * (i + 1)).to_bytes(10, "little") + b"N"
        for i in range(million // 10)
    )
    pairs = b"".join(
        b"J" + struct.pack("<i", i) + b"J" + struct.pack("<i", i) + b"\x86N"
        for i in range(million // 10)
    )
    body = drawn.choice(
        [
            b"\x8f" * million,
            b"}" * million,
            b"]" * million,
            b")" * million,
            b"N" + b"\x94" * million,
            b"}(" + numbers + b"u",
            b"}(" + pairs + b"u",
            b"N" + b"\x85" * million,
            b"(" * million,
            b"]" + b"2" * million + b"a" * (million // 2),
            b"".join(b"N" + b"p%d\n" % (modulus * (i + 1)) for i in range(million // 10)),
            b"\x8d" + struct.pack("<Q", 2**60) + b"x",
            b"B" + struct.pack("<I", 2**31) + b"x",
            b"\x8b" + struct.pack("<i", 2**30) + b"x",
            b"L" + b"9" * 100_000 + b"L\n",
        ]
    )
    return packed(b"\x80\x04" + body + b".")


def archives(drawn: random.Random, whole: bytes) -> bytes:
    """A zip archive that unpacks to more than it is, or whose directory lies."""
    zeros = b"\x00" * drawn.choice([10**6, 10**8])
    made = drawn.choice(
        [
            packed(pickle.dumps({"state_dict": {}}), {"data/0": zeros}, zipfile.ZIP_DEFLATED),
            packed(pickle.dumps({}) + b"\x00", {"data/0": zeros[:1000]}, zipfile.ZIP_BZIP2),
            packed(pickle.dumps({}), {f"data/{i}": b"" for i in range(20_000)}),
            packed(pickle.dumps({}), {"../../escape": b"x", "/etc/x": b"y", "data.pkl/x": b""}),
            whole,
        ]
    )
    at = made.rfind(b"PK\x01\x02")
    if drawn.random() < 0.5 and at >= 0:
        size = drawn.choice([2**32 - 2, 2**31, 0])
        made = made[: at + 20] + struct.pack("<II", size, size) + made[at + 28 :]
    return made


def packed(
    pickled: bytes, parts: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A pickle in an archive such as torch writes, with further parts."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in {"data.pkl": pickled, "version": b"3\n", **(parts or {})}.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


Damage = Callable[[random.Random, bytes], bytes]


def _named(*damages: Damage) -> list[tuple[str, Damage]]:
    return [(damage.__name__, damage) for damage in damages]


COMMON = (cut, flipped, overwritten, shuffled, nothing)

KINDS = {
    "json": _named(*COMMON, values, texts, values),
    "safetensors": _named(*COMMON, header, nested_header, header),
    "torch": _named(*COMMON, calls, programs, heavy, archives, flipped),
}
"""Kind of file -> what is done to it."""


@dataclass(frozen=True)
class Outcome:
    """What a reader did.

    Args:
        verdict: how it ended.
        said: the error, or the traceback.
        seconds: how long it took.
    """

    verdict: Verdict
    said: str
    seconds: float


def attempt(
    read: Callable[[], object],
    refusal: type[Exception],
    folder: Path,
    *,
    made: Sequence[str] = (),
) -> Outcome:
    """What a reader does, in a child process of its own with limits of time and memory.

    Args:
        read: reads what lies in the folder; called in the folder.
        refusal: the exceptions that are answers, if they are one line.
        folder: nothing may be added to it, other than what `made` names if the case was taken.
        made: names of what the reader makes in the folder.
    """
    before = _files(folder)
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _read_limited(read, refusal, folder, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - start
    verdict, _, said = told.partition("\n")
    if os.WIFSIGNALED(status) or not verdict:
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        hung = ended in (signal.SIGALRM, signal.SIGXCPU)
        return Outcome("hang" if hung else "memory", f"signal {ended}", seconds)
    if (folder / MARKER).exists():
        return Outcome("executed", said, seconds)
    extra = _files(folder) - before
    if verdict == "taken":
        extra = {name for name in extra if name.partition("/")[0] not in made}
    if extra:
        return Outcome("left files", ", ".join(sorted(extra)), seconds)
    return Outcome(verdict, said, seconds)  # type: ignore[arg-type]  # written below


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _read_limited(
    read: Callable[[], object], refusal: type[Exception], folder: Path, writing: int
) -> None:
    """Reads and says how that went; never returns."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY, virtual + MEMORY))
    os.chdir(folder)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        read()
        told = "taken\n"
    except refusal as error:
        one_line = "\n" not in str(error) and len(str(error)) < 2000
        told = f"refused\n{error}" if one_line else f"traceback\nnot one line: {str(error)[:300]!r}"
    except MemoryError:
        told = "memory\nMemoryError"
    except BaseException:
        told = f"traceback\n{traceback.format_exc()[-2000:]}"
    os.write(writing, told.encode(errors="replace")[:60_000])
    os._exit(0)
