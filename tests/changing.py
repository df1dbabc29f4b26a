"""Code that changes while a test runs, as far as digests of code see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rainoerme_plugin import provenance


@contextmanager
def changed_code(monkeypatch: pytest.MonkeyPatch, module: str) -> Iterator[None]:
    """Meanwhile this module of the package, or of another one, has other source."""
    read, name = provenance._read, f"rainoerme_plugin.{module}"

    def changed(asked: str) -> provenance._Source:
        source = read(asked)
        return source._replace(text=f"{source.text}\nchanged = True") if asked == name else source

    with monkeypatch.context() as patched:
        patched.setattr(provenance, "_read", changed)
        provenance._digest_of.cache_clear()
        yield
    provenance._digest_of.cache_clear()
