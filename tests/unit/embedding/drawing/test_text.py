"""Text in rows: scripts, breaks, truncation, and text without fonts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagesearch_services.embedding.drawing.fonts import (
    PACKAGES,
    Style,
    has_fonts,
    missing_scripts,
)
from imagesearch_services.embedding.drawing.text import natural_size_px, set_row, set_rows

STYLE = Style(20, "#ffffff")

SCRIPTS = {
    "Latin": "The quick brown fox, ÄÖÜ ñ ø ß",
    "Cyrillic": "Съешь же ещё этих мягких булок",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "Devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "Chinese": "天地玄黃宇宙洪荒日月盈昃辰宿列張",
    "Japanese": "いろはにほへとちりぬるをわかよたれそ",
    "Korean": "키스의 고유조건은 입술끼리 만나야 하고",
    "emoji": "🎉👩‍👩‍👧‍👦🇩🇪👍🏽🦊🥐🏳️‍🌈🎂🚀",
}

needs_fonts = pytest.mark.skipif(
    bool(missing_scripts()), reason=f"fonts are missing: `make system-packages` ({PACKAGES})"
)


@needs_fonts
@pytest.mark.parametrize("script", SCRIPTS)
def test_text_of_every_script_fits_its_rows_and_is_truncated_with_an_ellipsis(script: str) -> None:
    text = SCRIPTS[script]
    width, _ = natural_size_px(text, STYLE)
    (whole,) = set_rows(text, STYLE, width_px=width)
    assert whole.width_px == width
    (cut,) = set_rows(text, STYLE, width_px=width // 2)
    assert width // 4 < cut.width_px <= width // 2
    rows = set_rows(text, STYLE, width_px=width // 2, max_rows=4)
    assert 2 <= len(rows) <= 4
    assert all(row.width_px <= width // 2 for row in rows)


@needs_fonts
def test_arabic_and_hebrew_are_right_to_left_and_shaped() -> None:
    assert set_row("שלום", STYLE).is_right_to_left
    assert set_row("2024 مرحبا", STYLE).is_right_to_left
    assert not set_row("brand مرحبا", STYLE).is_right_to_left
    joined = set_row("بببب", STYLE).width_px
    assert joined < 4 * set_row("ب", STYLE).width_px * 0.9  # joined letters are narrower


@needs_fonts
def test_emoji_keep_their_colors_and_letters_take_the_color_of_the_style() -> None:
    emoji = set_row("🦊", Style(40, "#ffffff")).pixels
    opaque = emoji[emoji[..., 3] > 200][:, :3].astype(int)
    assert np.ptp(opaque, axis=1).max() > 80
    word = set_row("fox", Style(40, "#c02040")).pixels
    assert (word[word[..., 3] == 255][:, :3] == (0xC0, 0x20, 0x40)).all()


def test_rows_break_between_words() -> None:
    text = "one two three four"
    width, _ = natural_size_px("one two thr", STYLE)
    first, second = set_rows(text, STYLE, width_px=width, max_rows=2)
    assert first.width_px == natural_size_px("one two", STYLE)[0]
    assert second.width_px == natural_size_px("three four", STYLE)[0]


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=300), width_px=st.integers(1, 400), max_rows=st.integers(1, 3))
@example(text="\x08 0", width_px=1, max_rows=2)
@example(text="\xad", width_px=1, max_rows=1)
def test_no_text_exceeds_its_rows(text: str, width_px: int, max_rows: int) -> None:
    rows = set_rows(text, STYLE, width_px=width_px, max_rows=max_rows)
    assert len(rows) <= max_rows
    assert all(row.width_px <= width_px for row in rows)
    assert all(row.top_px + row.pixels.shape[0] <= row.height_px for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0301" * 5000,  # unlimited combining marks
        "W" * 100_000,
        "<span size='9999'>&amp;</b>",
        "\x00\x1b[31m\n\r\t\u2028\ufeff",
        "\u202e" + "gpj.exe",  # right-to-left override
    ],
)
def test_malicious_text_stays_in_its_row(text: str) -> None:
    rows = set_rows(text, STYLE, width_px=300)
    assert all(row.width_px <= 300 and row.height_px < 5 * STYLE.size_px for row in rows)


def test_markup_is_drawn_literally_and_direction_marks_are_removed() -> None:
    assert natural_size_px("<b>a</b>", STYLE)[0] > natural_size_px("a", STYLE)[0] * 3
    assert natural_size_px("\u202egpj.exe", STYLE) == natural_size_px("gpj.exe", STYLE)


def test_text_is_drawn_without_installed_fonts(tmp_path: Path) -> None:
    settings_file = tmp_path / "fonts.conf"
    settings_file.write_text(
        "<?xml version='1.0'?><!DOCTYPE fontconfig SYSTEM 'fonts.dtd'>"
        f"<fontconfig><dir>{tmp_path}/none</dir><cachedir>{tmp_path}</cachedir></fontconfig>"
    )
    program = """
from imagesearch_services.embedding.drawing import fonts, text
fonts.warm_up()
assert not fonts.has_fonts()
rows = text.set_rows("shoes 0.93", fonts.Style(20, "#ffffff"), width_px=300)
print(rows[0].width_px, (rows[0].pixels[..., 3] > 128).mean())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FONTCONFIG_FILE": str(settings_file)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    width, ink = done.stdout.splitlines()[-1].split()
    assert int(width) > 60
    assert 0.1 < float(ink) < 0.6
    assert "fonts_missing" in done.stdout
    assert PACKAGES in done.stdout


@needs_fonts
def test_every_supported_script_has_a_font() -> None:
    assert has_fonts()
    assert missing_scripts() == []


def test_short_rows_are_cached_and_large_rows_are_not() -> None:
    assert set_row("cat", STYLE) is set_row("cat", STYLE)
    huge = "W" * 255, Style(62, "#ffffff")
    assert set_row(*huge) is not set_row(*huge)
