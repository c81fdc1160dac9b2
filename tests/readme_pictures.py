"""Creates the pictures of the READMEs from real searches: `make readme-pictures`.

It stores photographs from the wheel of scikit-image, searches with edits of them, and saves the
answers as a drawing and as a page. Chromium takes screenshots of the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from imagesearch.demo.pictures import STORED, data_folder, open_picture
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.browser import opened, running_browser
from tests.triton_server import prepared_models

FOLDER = Path(__file__).parents[1] / "clients" / "images"
MAX_BYTES = 150_000
QUALITIES = (88, 80, 70, 60, 50)
LIBRARY = "holidays"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="imagesearch-pictures-") as folder:
        home = Path(folder)
        settings = SuiteSettings(
            port=free_ports(1)[0], data_dir=home / "data", models_dir=prepared_models()
        )
        suite = Suite.start(settings)
        try:
            make(suite.target, home)
        finally:
            suite.stop()


def make(target: str, home: Path) -> None:
    photos = home / "photos"
    photos.mkdir()
    for name in STORED:
        open_picture(data_folder() / name).save(photos / f"{Path(name).stem}.jpg", quality=92)
    collage(home / "found-on-the-web.jpg")
    copy(home / "mirrored.jpg")
    command(target, home, "library", "create", LIBRARY, "--type", "whole-image")
    command(target, home, "add", LIBRARY, "photos", "--tag", "year=2026", "--tag", "place=Ελλάδα")
    command(target, home, "search", LIBRARY, "found-on-the-web.jpg", "--save", "search.png")
    keep(Image.open(home / "search.png"), "search.webp")
    command(
        target,
        home,
        "search",
        LIBRARY,
        "found-on-the-web.jpg",
        "mirrored.jpg",
        "--html",
        "found.html",
    )
    elements(home / "patterns", home / "desk.jpg")
    command(target, home, "library", "create", "patterns", "--type", "element")
    command(target, home, "add", "patterns", "patterns")
    command(target, home, "search", "patterns", "desk.jpg", "--save", "element.png")
    keep(Image.open(home / "element.png"), "element.webp")
    with running_browser() as browser:
        screen(browser, home, size="desktop", dark=False)
        screen(browser, home, size="phone", dark=True)


def collage(path: Path) -> None:
    """Paste two stored photographs, one of them mirrored, into one that is not stored."""
    scene = open_picture(data_folder() / "coffee.png").resize((1200, 800))
    cat = open_picture(data_folder() / "chelsea.png").resize((480, 320))
    rocket = open_picture(data_folder() / "rocket.jpg").resize((420, 280))
    scene.paste(cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (60, 60))
    scene.paste(rocket, (720, 470))
    scene.save(path, quality=85)


def copy(path: Path) -> None:
    """Crop a stored photograph, mirror it and convert it to gray."""
    picture = open_picture(data_folder() / "astronaut.png")
    width, height = picture.size
    picture = picture.crop((width // 8, 0, width, height * 7 // 8))
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("L").save(path, quality=70)


def elements(folder: Path, scene: Path) -> None:
    """Save pictures as elements, and paste two of them, rotated, into another picture."""
    folder.mkdir()
    for name in ("coins", "chelsea", "brick", "page"):
        open_picture(data_folder() / f"{name}.png").save(folder / f"{name}.png")
    desk = open_picture(data_folder() / "coffee.png").resize((1200, 800)).convert("RGBA")
    for name, degrees, size, place in (
        ("coins", -12, (440, 380), (60, 60)),
        ("chelsea", 20, (420, 360), (660, 380)),
    ):
        element = open_picture(folder / f"{name}.png").convert("RGBA")
        element = element.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
        desk.alpha_composite(element.resize(size), place)
    desk.convert("RGB").save(scene, quality=90)


def command(target: str, home: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "imagesearch.cli", *arguments],
        cwd=home,
        env={**os.environ, "IMAGESEARCH_TARGET": target},
        check=True,
    )


def screen(browser: Browser, home: Path, *, size: str, dark: bool) -> None:
    """Save a screenshot of the top of the page."""
    with opened(browser, (home / "found.html").as_uri(), size=size, dark=dark) as page:
        page.screenshot(path=home / "screen.png")
    keep(Image.open(home / "screen.png"), f"page-{size}.webp")


def keep(picture: Image.Image, name: str) -> None:
    """Save a picture as WebP of at most MAX_BYTES."""
    path = FOLDER / name
    for quality in QUALITIES:
        picture.convert("RGB").save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MAX_BYTES:
            break
    else:
        raise RuntimeError(f"{name} is larger than {MAX_BYTES:,} bytes")
    sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
