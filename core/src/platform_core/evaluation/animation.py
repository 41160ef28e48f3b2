"""A trajectory as an animation that opens anywhere: a page of HTML, or a GIF.

    Trajectory --Frames--> frames --draw--> one file without any others, and without a network

Written by `platform sample --trajectory FILE.html` and `FILE.gif`.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.data.tokenizer.base import Tokenizer
from platform_core.evaluation.figures import LIGHT, MIDDLE
from platform_core.evaluation.frames import Frames, Kind, rows
from platform_core.evaluation.trajectory import Trajectory
from platform_core.record.files import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

COLUMNS = 64
"""Characters in a line of a GIF."""
FONT_SIZE = 16
MARGIN = 12
"""Pixels around the text of a GIF."""
MOST_IMAGES = 300
"""Images of a GIF at most; of a longer trajectory, steps are shown several at once."""
LAST_SECONDS = 3
"""How long a GIF stays at the text before it begins again."""


def write(way: Trajectory, path: Path, tokenizer: Tokenizer, *, title: str, fps: float) -> None:
    """Write the animation of a trajectory, as a whole or not at all.

    Args:
        way: the trajectory.
        path: the file, whose name ends in one of `FORMATS`.
        tokenizer: tokenizer of the text.
        title: line above the text; a GIF has none.
        fps: frames in a second, at first.
    """
    write_bytes(path, FORMATS[path.suffix](way, tokenizer, title, fps))


def page(way: Trajectory, tokenizer: Tokenizer, title: str, fps: float) -> bytes:
    """The page: play and pause, a slider over the steps, and what is new in each is marked."""
    data = {"title": title, "fps": fps, "frames": list(_changes(way, tokenizer))}
    # `<` would end the element that holds the data, if the text says `</script>`.
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    template = files(__package__).joinpath("animation.html").read_text(encoding="utf-8")
    return template.replace("DATA", written, 1).encode()


def _changes(way: Trajectory, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Each frame as its difference from the one before: [position, text, kind] of what changed.

    The page turns what was new in the frame before into what is old by itself.
    """
    usual: Mapping[Kind, Kind] = {"new": "old", "remasked": "mask"}
    before: list[tuple[str, Kind]] = []
    for frame in Frames.of(way, tokenizer):
        now = list(zip(frame.texts, frame.kinds, strict=True))
        aged = [(text, usual.get(kind, kind)) for text, kind in before]
        changes = [
            [place, *here] for place, here in enumerate(now) if not aged or aged[place] != here
        ]
        changed = sum(kind in usual for kind in frame.kinds)
        yield {"alpha": round(frame.alpha, 4), "changed": changed, "changes": changes}
        before = now


def picture(way: Trajectory, tokenizer: Tokenizer, _: str, fps: float) -> bytes:
    """The GIF, which begins again and again."""
    way = _thinned(way)
    frames = [rows(frame, COLUMNS) for frame in Frames.of(way, tokenizer)]
    font = _font()
    first, *others = (_image(lines, max(map(len, frames)), font) for lines in frames)
    written = io.BytesIO()
    milliseconds = max(20, round(1000 / fps))  # browsers slow down what is faster
    times = [milliseconds] * len(others) + [LAST_SECONDS * 1000]
    first.save(
        written,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=times,
        loop=0,
    )
    return written.getvalue()


def _thinned(way: Trajectory) -> Trajectory:
    """The trajectory with at most `MOST_IMAGES` of its rows, evenly spread from end to end."""
    last = len(way.tokens) - 1
    if last < MOST_IMAGES:
        return way
    kept = [number * last // (MOST_IMAGES - 1) for number in range(MOST_IMAGES)]
    tokens, alphas = [way.tokens[n] for n in kept], [way.alphas[n] for n in kept]
    return replace(way, tokens=tokens, alphas=alphas)


def _font() -> "FreeTypeFont":
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSansMono.ttf"), FONT_SIZE)


def _image(lines: list[list[tuple[str, Kind]]], room: int, font: "FreeTypeFont") -> "Image":
    """The lines of a frame as an image with room for so many."""
    from PIL import Image, ImageDraw

    wide, high = font.getlength("m"), FONT_SIZE * 1.5
    size = round(COLUMNS * wide) + 2 * MARGIN, round(room * high) + 2 * MARGIN
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        x, y = float(MARGIN), MARGIN + row * high
        for text, kind in line:
            end = x + font.getlength(text)
            if kind == "new":
                draw.rectangle((x, y, end - 1, y + high - 3), fill=MIDDLE)
            draw.text((x, y), text, fill=INKS[kind], font=font)
            x = end
    return image.quantize(colors=32)


INKS: Mapping[Kind, str] = {"mask": LIGHT, "remasked": "#d7191c", "new": "black", "old": "black"}
"""The color of each kind of token in a GIF."""

FORMATS: Mapping[str, Callable[[Trajectory, Tokenizer, str, float], bytes]] = {
    ".html": page,
    ".gif": picture,
}
"""Ending of a file name -> what writes an animation in this format."""
