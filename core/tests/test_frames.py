"""Frames of a text that comes out of the noise: what is said of each position, and animations."""

import io
import json
import re

import pytest
from PIL import Image

from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.evaluation import animation
from platform_core.evaluation.frames import BREAK, BROKEN, Frames, rows
from platform_core.evaluation.trajectory import Trajectory

LETTERS = CharacterTokenizer("</\nab")
MASK = LETTERS.vocab_size
A, B, LESS, LINE = (int(LETTERS.encode(letter)[0]) for letter in ("a", "b", "<", "\n"))
WAY = Trajectory(
    [[MASK, MASK, A], [A, MASK, A], [B, LESS, MASK], [B, LINE, A]], [0.0, 0.4, 0.7, 1.0], MASK
)


class Bytes:
    """A tokenizer of the bytes of UTF-8, which joins words with a blank before a capital."""

    vocab_size = 256

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


def test_a_frame_says_of_each_position_what_the_last_step_made_of_it():
    frames = list(Frames.of(WAY, LETTERS))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert ["".join(frame.texts) for frame in frames] == ["▒▒a", "a▒a", "b<▒", "b\na"]
    assert frames[0].kinds == ("mask", "mask", "old")
    assert frames[1].kinds == ("new", "mask", "old")
    assert frames[2].kinds == ("new", "new", "remasked")
    assert frames[3].kinds == ("old", "new", "new")


@pytest.mark.parametrize("text", ["né €, 日本 𝄞!", "plain"])
def test_texts_of_positions_are_the_whole_text_though_a_character_has_several_tokens(text):
    tokens = list(text.encode())
    frame = Frames(Bytes()).next(tokens, 1.0)
    assert "".join(frame.texts) == text
    cut = Frames(Bytes()).next([*tokens[:2], 256, *tokens[3:]], 0.5)
    assert "".join(cut.texts[:2]) == bytes(tokens[:2]).decode("utf-8", "replace")
    assert cut.texts[2] == "▒"


def test_nothing_that_a_terminal_obeys_is_shown():
    frame = Frames(Bytes()).next(list("a\x1b[2J\tb\r\u202e".encode()), 1.0)
    assert "".join(frame.texts) == f"a{BROKEN}[2J b {BROKEN}"


def test_lines_are_of_one_width_and_tokens_keep_their_places():
    frame = Frames(Bytes()).next(list("ab\ncd日本e".encode()), 1.0)
    lines = ["".join(text for text, _ in line) for line in rows(frame, 5)]
    assert lines == [f"ab{BREAK}cd", "日本e"]


def test_a_page_needs_nothing_else_and_repeats_the_trajectory():
    page = animation.page(WAY, LETTERS, "a </script> title", 12).decode()
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(", page)
    (written,) = re.findall(r'type="application/json">(.*?)</script>', page)
    data = json.loads(written)
    assert (data["title"], data["fps"]) == ("a </script> title", 12)
    shown, frames = {}, list(Frames.of(WAY, LETTERS))
    for frame, expected in zip(data["frames"], frames, strict=True):
        aged = {"new": "old", "remasked": "mask"}
        shown = {place: (text, aged.get(kind, kind)) for place, (text, kind) in shown.items()}
        shown |= {place: (text, kind) for place, text, kind in frame["changes"]}
        assert [shown[place] for place in range(3)] == list(
            zip(expected.texts, expected.kinds, strict=True)
        )
    assert [frame["changed"] for frame in data["frames"]] == [0, 1, 3, 2]


def test_a_gif_has_a_frame_for_each_step_up_to_a_limit(monkeypatch):
    with Image.open(io.BytesIO(animation.picture(WAY, LETTERS, "", 10))) as gif:
        assert gif.n_frames == 4
        assert gif.info["loop"] == 0
    monkeypatch.setattr(animation, "MOST_IMAGES", 2)
    with Image.open(io.BytesIO(animation.picture(WAY, LETTERS, "", 10))) as gif:
        assert gif.n_frames == 2
