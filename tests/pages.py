"""Pages in a browser that has no network: what the tests of the report and of before and after have in common."""

from __future__ import annotations

import base64
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@contextmanager
def running_browser() -> Iterator[Any]:
    """Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium: neither CHROMIUM is set nor is one on the PATH")
    with playwright.sync_playwright() as running:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        found = running.chromium.launch(executable_path=program, args=["--no-sandbox"] if root else [])
        yield found
        found.close()


@contextmanager
def visit(browser: Any, file: Path, ready: str | None = None, **options: Any) -> Iterator[Any]:
    """The page in a context without network; at the end nothing may have been asked for or complained about.

    ``ready`` selects what the page's script makes: it is waited for.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True, **options})
    tab = context.new_page()
    asked: list[str] = []
    heard: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.heard = heard
    tab.set_default_timeout(5000)
    tab.goto(file.as_uri())
    has_scripts = options.get("java_script_enabled", True)
    if ready is not None and has_scripts:
        tab.locator(ready).wait_for()
    yield tab
    if has_scripts:
        assert tab.evaluate("window.pwned") is None
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert heard == []
    context.close()


def until(true: Callable[[], bool]) -> None:
    """Wait for what the browser does in its own time; Playwright's own way needs a laxer policy of the page."""
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def assert_an_injected_script_does_not_run(tab: Any) -> None:
    tab.evaluate(
        """() => {
          window.refused = 0;
          document.addEventListener("securitypolicyviolation", () => window.refused++);
          const script = document.createElement("script");
          script.textContent = "window.pwned = 1";
          document.body.append(script);
        }"""
    )
    until(lambda: tab.evaluate("window.refused") == 1)
    (said,) = tab.heard
    assert "Content Security Policy" in said
    tab.heard.clear()


def colours_at(
    tab: Any, known: Mapping[str, tuple[int, int, int]], labels: str, *spots: tuple[float, float]
) -> list[str]:
    """Which of the known colours show at these shares of the stage, its labels (a selector) hidden."""
    tab.locator(labels).evaluate_all("all => { for (const one of all) one.style.visibility = 'hidden' }")
    image = np.asarray(Image.open(io.BytesIO(tab.locator("#stage").screenshot())).convert("RGB"), int)
    found = []
    for x, y in spots:
        pixel = image[int(y * (image.shape[0] - 1)), int(x * (image.shape[1] - 1))]
        name = min(known, key=lambda key: float(np.abs(np.subtract(known[key], pixel)).sum()))
        assert np.abs(np.subtract(known[name], pixel)).max() < 12, pixel
        found.append(name)
    return found


def drag(tab: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place on the stage to another, in shares of it."""
    box = tab.locator("#stage").bounding_box()
    for number, (x, y) in enumerate((start, end)):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            tab.mouse.down()
    tab.mouse.up()


def decode(uri: str) -> Any:
    """The JPEG that an address holds."""
    kind, _, text = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
