"""``robot-charger report``: a recording as one HTML page, alone or against another; as a picture by a browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from robot_charger.operator.page import page
from robot_charger.operator.reading import RecordingError
from robot_charger.operator.story import Story, read_story

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser() -> str | None:
    """A browser that can take a picture of a page."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def report(files: list[Path], output: Path, evse: int = 0) -> list[Story]:
    """Write the page of one recording, or of two side by side. Raises RecordingError or OSError."""
    stories = [read_story(file, evse) for file in files]
    for story in stories:
        if not story.summary.messages:
            raise RecordingError(f"{story.path}: no messages in it")
        if evse and not any(name.startswith(f"/evse{evse}/") for name in story.summary.topics):
            raise RecordingError(f"{story.path}: nothing of EVSE {evse} in it")
    output.write_text(page(stories), encoding="utf-8")
    return stories


def picture(html: Path, png: Path, width: int = 1500, height: int = 2400) -> None:
    """Take a picture of a page with a headless browser. Raises RecordingError when there is none or it fails."""
    program = browser()
    if program is None:
        raise RecordingError("a picture needs a browser: apt install chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={png.resolve()}"]
        try:
            result = subprocess.run([*command, html.resolve().as_uri()], capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            raise RecordingError("the browser took no picture within two minutes") from None
    if not png.exists():
        raise RecordingError(f"the browser took no picture: {(result.stderr.strip().splitlines() or ['no word'])[-1]}")
