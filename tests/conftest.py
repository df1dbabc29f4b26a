"""What tests of several rooms ask for: real data, published checkpoints, a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import running_browser


def _folder(variable: str, holds: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder with {holds}")
    if not Path(value).is_dir():
        pytest.fail(f"{variable} names no folder: {value}")
    return Path(value)


@pytest.fixture(scope="session")
def rainoerme_data() -> Path:
    return _folder("RAINOERME_DATA", "the real test sets")


@pytest.fixture(scope="session")
def rainoerme_weights() -> Path:
    return _folder("RAINOERME_WEIGHTS", "the published checkpoints")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as found:
        yield found
