"""Files of torch.save, read without running any code that they contain.

A pickle is a program that may call any function. `read_pickle` is a machine for its instructions
that cannot call anything: plain data become plain data, every class or function is a `Name`, and
everything that is built or called with one is `Inert`, which remembers its parts. Tensors are
records of where their numbers lie (`Stored`), checked against the bytes of the file and read one by
one.

Memory is bounded by the file: archives hold their parts uncompressed and in sum no larger than the
file, instructions are counted, and no instruction copies what another made. Used by `layouts`.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from platform_core.errors import UsageError

MAX_PICKLE_BYTES = 64 * 2**20
"""Most bytes of a checkpoint's pickle, which holds no tensors: GPT-2's tokenizer takes 5 MB."""

MAX_INSTRUCTIONS = 3_000_000
MAX_OBJECTS = 1_000_000
"""Lists, dictionaries, sets and calls that a pickle may make: a byte of it may make one."""

MAX_MEMO = 2_000_000
MAX_NUMBER = 2**60
"""Whole numbers from here on are no keys: Python's hashes of them can be made to collide."""

MAX_DIMENSIONS = 8
MAX_DEPTH = 64
MAX_NODES = 1_000_000

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

PUSHED = (  # noqa: SIM905
    "INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
).split()
"""Instructions that push their argument."""

MAKING = frozenset(
    (  # noqa: SIM905
        "EMPTY_LIST EMPTY_DICT EMPTY_SET LIST DICT FROZENSET TUPLE TUPLE1 TUPLE2 TUPLE3 REDUCE "
        "NEWOBJ NEWOBJ_EX INST OBJ"
    ).split()
)
"""Instructions that make an object, of which one byte may make half a kilobyte."""

Act = Callable[[Any], object]

Scalar = str | bytes | int | float | bool | None


class ForeignError(UsageError):
    """A file that is no checkpoint, or one with content that no checkpoint needs."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle mentions; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@final
@dataclass(eq=False, slots=True)
class Inert:
    """A call that a pickle asked for and that was not made: the callable and its arguments."""

    called: object
    arguments: object
    state: object = None
    items: list[object] = field(default_factory=list)
    entries: dict[object, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<inert {self.called}>"


@dataclass(frozen=True)
class Storage:
    """Consecutive numbers of one type, in a part of an archive."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor that has not been read: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def inside(self) -> bool:
        """Whether the tensor's numbers all lie inside the storage and are no more than it holds."""
        numel = math.prod(self.shape)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        return numel == 0 or (numel <= self.storage.numel and last < self.storage.numel)

    @property
    def place(self) -> tuple[object, ...]:
        """A key that is equal for two tensors of the same numbers in one storage: tied weights."""
        return self.storage.key, self.offset, self.shape, self.strides


class TorchArchive:
    """A file of torch.save, open for reading.

    Args:
        path: path of the file.

    Raises:
        ForeignError: the file is not of torch.save, is damaged, or holds unsupported content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = self._opened()
        try:
            self._prefix = self._checked()
            with self._damage():
                pickle = self._zip.read(f"{self._prefix}data.pkl")
            self.content = read_pickle(pickle, self._sizes(), source=str(path))
        except BaseException:
            self._zip.close()
            raise
        # Twice the file, because tied weights are read once for each name.
        self._budget = 2 * path.stat().st_size

    def __enter__(self) -> "TorchArchive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, stored: Stored) -> Tensor:
        """Read a tensor's numbers as a contiguous tensor that owns its memory.

        Raises:
            ForeignError: the archive is damaged, or more is read from it than it holds.
        """
        storage = stored.storage
        self._budget -= storage.numel * storage.dtype.itemsize
        if self._budget < 0:
            raise ForeignError(f"{self.path} gives many tensors the same numbers; it is not read")
        if math.prod(stored.shape) == 0:
            return torch.empty(stored.shape, dtype=storage.dtype)
        with self._damage():
            numbers = bytearray(self._zip.read(f"{self._prefix}data/{storage.key}"))
        flat = torch.frombuffer(numbers, dtype=storage.dtype)
        return flat.as_strided(stored.shape, stored.strides, stored.offset).clone(
            memory_format=torch.contiguous_format
        )

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except OSError as error:
            raise ForeignError(f"{self.path} cannot be read: {error.strerror}") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ForeignError(
                f"{self.path} is no whole file of torch.save ({error}); where torch before 1.6 "
                "wrote it, load it there and save it again"
            ) from error

    def _checked(self) -> str:
        """The folder inside the archive, after all checks that need no reading of its parts."""
        parts = self._zip.infolist()
        names = [part.filename for part in parts]
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(set(names)) != len(names):
            raise ForeignError(f"{self.path} is a zip archive, but not one of torch.save")
        prefix = pickles[0].removesuffix("data.pkl")
        if any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 for part in parts):
            raise ForeignError(f"{self.path} is compressed or encrypted, which torch never does")
        if sum(part.file_size for part in parts) > self.path.stat().st_size:
            raise ForeignError(f"{self.path} claims to hold more than its size")
        if self._zip.getinfo(pickles[0]).file_size > MAX_PICKLE_BYTES:
            raise ForeignError(f"{self.path} holds a pickle of more than {MAX_PICKLE_BYTES} bytes")
        if f"{prefix}byteorder" in names:
            with self._damage():
                if self._zip.read(f"{prefix}byteorder") != b"little":
                    raise ForeignError(f"{self.path} is of a big-endian machine; it is not read")
        return prefix

    def _sizes(self) -> dict[str, int]:
        """Number of bytes of each storage."""
        start = f"{self._prefix}data/"
        return {
            part.filename.removeprefix(start): part.file_size
            for part in self._zip.infolist()
            if part.filename.startswith(start)
        }

    def _damage(self) -> "_Damage":
        return _Damage(self.path)


class _Damage:
    """Context that reports errors while bytes are read from an archive."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        damage = (zipfile.BadZipFile, NotImplementedError, EOFError, KeyError, OSError)
        if isinstance(error, damage):
            raise ForeignError(f"{self._path} is damaged: {error}") from error


def read_pickle(pickle: bytes, sizes: Mapping[str, int], *, source: str) -> Any:
    """The object that a pickle describes, made of plain data, `Name`, `Inert` and `Stored` alone.

    Args:
        pickle: bytes of the pickle.
        sizes: number of bytes of each storage that the pickle may refer to.
        source: file that errors name.

    Raises:
        ForeignError: the pickle is damaged, too large, or refers to missing storages.
    """
    return _Machine(sizes, source).run(pickle)


def plain(value: object) -> Any:
    """A value as dicts, lists and scalars; omegaconf's containers become their content.

    Everything else that is inert becomes its name in angle brackets.

    Raises:
        ForeignError: the value nests too deeply, or has too many parts when written out.
    """
    return _Plain().convert(value, 0)


class _Plain:
    """Converter that counts its output, because shared parts make small pickles large."""

    def __init__(self) -> None:
        self._nodes = 0

    def convert(self, value: object, depth: int) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise ForeignError("the checkpoint's configuration is nested too deeply or too large")
        if isinstance(value, Inert):
            return self._inert(value, depth)
        if isinstance(value, dict):
            return {
                key if isinstance(key, str) else repr(key)[:200]: self.convert(inner, depth + 1)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.convert(inner, depth + 1) for inner in value]
        return value if value is None or isinstance(value, str | int | float) else f"<{value!r}>"

    def _inert(self, value: Inert, depth: int) -> Any:
        state = value.state
        if isinstance(state, dict):
            for key in ("_content", "_val"):
                if key in state:
                    return self.convert(state[key], depth + 1)
        if value.entries or value.items:
            return self.convert(value.entries or value.items, depth + 1)
        return f"<{value.called}>" if isinstance(value.called, Name) else "<inert>"


class _Machine:
    """Stack, marks and memo of the pickle language, and an action for each of its instructions."""

    def __init__(self, sizes: Mapping[str, int], source: str) -> None:
        self._sizes, self._source = sizes, source
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._acts = self._acts_by_name()

    def run(self, pickle: bytes) -> Any:
        made = 0
        try:
            for count, (instruction, argument, _) in enumerate(pickletools.genops(pickle)):
                if count > MAX_INSTRUCTIONS:
                    raise ForeignError(f"{self._source} holds a pickle that is too long")
                if instruction.name == "STOP":
                    return self._stack.pop()
                act = self._acts.get(instruction.name)
                if act is None:
                    raise ForeignError(
                        f"{self._source} is damaged: its pickle has instruction {instruction.name}"
                    )
                made += instruction.name in MAKING
                if made > MAX_OBJECTS or len(self._memo) > MAX_MEMO:
                    raise ForeignError(f"{self._source} holds a pickle of too many objects")
                act(argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ForeignError):
                raise
            raise ForeignError(f"{self._source} is damaged: its pickle is invalid") from error
        raise ForeignError(f"{self._source} is damaged: its pickle has no end")

    def _acts_by_name(self) -> dict[str, Act]:
        push = self._stack.append
        acts: dict[str, Act] = dict.fromkeys(PUSHED, push)
        constants: dict[str, object] = {
            "NONE": None,
            "NEWTRUE": True,
            "NEWFALSE": False,
            "EMPTY_TUPLE": (),
        }
        acts |= {name: self._pushes(value) for name, value in constants.items()}
        acts |= dict.fromkeys(("PROTO", "FRAME"), lambda _: None)
        acts |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda n: push(self._memo[n]))
        acts |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._put)
        return acts | {
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "POP": lambda _: self._pop(),
            "POP_MARK": lambda _: self._marked(),
            "DUP": lambda _: push(self._stack[-1]),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_SET": lambda _: push(Inert(Name("builtins", "set"), ())),
            "LIST": lambda _: push(self._marked()),
            "TUPLE": lambda _: push(tuple(self._marked())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "DICT": lambda _: push(dict(_pairs(self._marked()))),
            "FROZENSET": lambda _: push(
                Inert(Name("builtins", "frozenset"), (), items=self._marked())
            ),
            "APPEND": lambda _: self._append([self._stack.pop()]),
            "APPENDS": lambda _: self._append(self._marked()),
            "ADDITEMS": lambda _: self._append(self._marked()),
            "SETITEM": lambda _: self._set([self._stack.pop(-2), self._stack.pop()]),
            "SETITEMS": lambda _: self._set(self._marked()),
            "GLOBAL": lambda text: push(_name(*text.split(" ", 1))),
            "STACK_GLOBAL": lambda _: push(_name(self._stack.pop(-2), self._stack.pop())),
            "REDUCE": lambda _: self._call(),
            "NEWOBJ": lambda _: self._call(),
            "NEWOBJ_EX": lambda _: self._call_with_words(),
            "INST": lambda text: push(Inert(_name(*text.split(" ", 1)), tuple(self._marked()))),
            "OBJ": lambda _: self._call_marked(),
            "BUILD": lambda _: self._build(self._stack.pop()),
            "BINPERSID": lambda _: push(self._storage(self._stack.pop())),
        }

    def _pushes(self, value: object) -> Act:
        return lambda _: self._stack.append(value)

    def _pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _put(self, number: int) -> None:
        if not 0 <= number < 2**32:
            raise ValueError("PUT")
        self._memo[number] = self._stack[-1]

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _tuple(self, length: int) -> None:
        items = [self._stack.pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        (target.items if isinstance(target, Inert) else _list(target)).extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        (target.entries if isinstance(target, Inert) else _dict(target)).update(_pairs(items))

    def _call(self) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        self._stack.append(self._made(called, arguments))

    def _call_with_words(self) -> None:
        words, arguments, called = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._stack.append(Inert(called, arguments, entries=_dict(words)))

    def _call_marked(self) -> None:
        called, *arguments = self._marked()
        self._stack.append(Inert(called, tuple(arguments)))

    def _build(self, state: object) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target.state = state
        # A dictionary of weights also has versions of its modules, which are ignored.
        elif not isinstance(target, dict | Stored):
            raise ValueError("BUILD")

    def _made(self, called: object, arguments: object) -> object:
        match str(called) if isinstance(called, Name) else None, arguments:
            case "collections.OrderedDict", ():
                return {}
            case "torch._utils._rebuild_tensor_v2", (
                Storage() as storage,
                offset,
                size,
                stride,
                *_,
            ):
                return self._tensor(storage, offset, size, stride)
            case "torch._utils._rebuild_parameter", (Stored() as stored, *_):
                return stored
        return Inert(called, arguments)

    def _storage(self, reference: object) -> Storage:
        match reference:
            case ("storage", Name("torch", kind), str(key), str(), int(numel)) if kind in DTYPES:
                dtype = DTYPES[kind]
                if numel < 0 or self._sizes.get(key) != numel * dtype.itemsize:
                    raise ForeignError(
                        f"{self._source} is damaged: storage {key[:20]} is said to have {numel} "
                        f"numbers of {dtype.itemsize} bytes, but has {self._sizes.get(key)} bytes"
                    )
                return Storage(key, dtype, numel)
        raise ForeignError(f"{self._source} refers to something that is no storage of torch's")

    def _tensor(self, storage: Storage, offset: object, size: object, stride: object) -> Stored:
        match offset, size, stride:
            case int(), tuple(), tuple() if len(size) == len(stride) <= MAX_DIMENSIONS:
                stored = Stored(storage, offset, size, stride)
                if _counts((offset, *size, *stride)) and stored.inside:
                    return stored
        raise ForeignError(
            f"{self._source} is damaged: a tensor reaches beyond its storage {storage.key}"
        )


def _name(module: object, name: object) -> Name:
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > 500:
        raise ValueError("name")
    return Name({"__builtin__": "builtins"}.get(module, module), name)


def _pairs(items: list[Any]) -> Iterator[tuple[object, Any]]:
    """Keys and values in turn.

    Nested keys could exhaust the machine's stack. Large numbers and tuples of several numbers could
    be chosen so that their hashes collide; they are kept as `Inert`, each a key of its own.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        keys = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, Scalar | Name) for part in keys):
            raise TypeError("key")
        yield key if _spreads(keys) else Inert(Name("builtins", "key"), key), value


def _spreads(parts: tuple[object, ...]) -> bool:
    """Whether nobody can choose many such keys with one hash; those of text are random."""
    numbers = [part for part in parts if isinstance(part, int | float)]
    return len(numbers) < 2 and all(abs(number) < MAX_NUMBER for number in numbers)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("list")
    return value


def _dict(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("dict")
    return value


def _counts(values: tuple[object, ...]) -> bool:
    """Whether all values are non-negative integers that fit into 63 bits."""
    return all(type(value) is int and 0 <= value < 2**63 for value in values)
