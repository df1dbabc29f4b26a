"""What the scripts that watch a training share: its processes, as Linux's /proc tells, and its log."""

from __future__ import annotations

import re
from pathlib import Path

ITERATION = re.compile(r"iter:\s*([\d,]+)")
"""In a line of BasicSR's log."""


def in_session(session: int) -> list[int]:
    """The living processes of a session: the one that was started with ``start_new_session``, and what came of it.

    A child stays in it when its parent dies.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # pid (name) state parent group session ...; a name may hold blanks and brackets.
            state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended in the meantime
            continue
        if int(own) == session and state not in "ZX":
            found.append(int(folder.name))
    return sorted(found)
