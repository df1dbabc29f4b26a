"""Deraining and measuring every image by every method; what is done is kept at once, and never done again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..archs.runner import Runner
from ..data.images import RGB, decode_image, encode_png
from ..data.sources import Track, in_threads, untracked
from ..errors import DataError, one_line
from .measures import Measures
from .methods import Method
from .records import Records, key_of, write_result
from .testsets import TestSet

_AHEAD = 4
"""Images read ahead of the network, and results waiting to be measured behind it."""
_LIVES = 3
"""How often a process may die over an image until it is left out: once or twice it may have been killed for another
reason."""
_DIED = f"the process died {_LIVES} times while it derained this image; it may want more memory than there is"


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's."""

    rank: int = 0
    world: int = 1


class Scoring:
    """The results of methods on data sets, kept in ``records`` by all that they depend on.

    Args:
        records: What is done already.
        images: The folder for derained images.
        measures: What to measure.
        run: Where networks compute.
        save_images: Whether to keep all derained images.
    """

    def __init__(self, records: Records, images: Path, measures: Measures, run: Runner, save_images: bool) -> None:
        self.records = records
        self.images = images
        self.measures = measures
        self.run = run
        self.save_images = save_images

    def result(self, method: Method, test_set: TestSet, index: int) -> dict[str, Any] | None:
        """What is known of one image: ``figures``, ``problems`` and ``output``, or an ``error``; None: nothing yet."""
        return self.records.get(self._key(method, test_set, index))

    def score(self, method: Method, test_set: TestSet, share: Share = Share(), track: Track[Any] = untracked) -> None:
        """Derain and measure what is not done yet of this process's share; an image that fails is no end of it.

        Raises:
            RainOerMeError: The results cannot be written.
        """
        todo = [
            index
            for index in range(share.rank, len(test_set), share.world)
            if not self._is_done(method, test_set, index)
        ]
        for index in [index for index in todo if self._deaths(method, test_set, index) >= _LIVES]:
            todo.remove(index)
            self.records.add(self._key(method, test_set, index), {"error": _DIED})
        if not todo:
            return

        def measure(derained: _Derained) -> dict[str, Any]:
            if derained.image is None or derained.rainy is None:
                return {"error": derained.error}
            figures, problems = self.measures(derained.image, derained.rainy, derained.clean)
            if self._keeps(method):
                write_result(self.image_path(method, test_set, derained.index), encode_png(derained.image))
            return {"figures": figures, "problems": problems, "output": digest_of(derained.image)}

        with self.run.placed(method.network):
            found = in_threads(measure, self._derain(method, test_set, todo), ahead=_AHEAD)
            title = f"{method.name} on {test_set.name}"
            for index, result in zip(todo, track(found, len(todo), title), strict=True):
                self.records.add(self._key(method, test_set, index), result)

    def picture(self, method: Method, test_set: TestSet, index: int) -> RGB | None:
        """The derained image that was measured: as it was kept, else made again and kept; None: it failed."""
        result = self.result(method, test_set, index)
        if result is None or "output" not in result:
            return None
        with self.run.placed(method.network):
            (derained,) = self._derain(method, test_set, [index])
        path = self.image_path(method, test_set, index)
        if derained.image is not None and not path.exists():
            write_result(path, encode_png(derained.image))
        return derained.image

    def image_path(self, method: Method, test_set: TestSet, index: int) -> Path:
        """Where a derained image is kept."""
        return self.images / method.name / test_set.name / test_set.files[index]

    def _derain(self, method: Method, test_set: TestSet, indices: Sequence[int]) -> Iterator[_Derained]:
        def read(index: int) -> _Derained:
            try:
                return _Derained(index, *test_set.read(index))
            except DataError as error:
                return _Derained(index, error=one_line(error))

        read_ahead: Iterable[_Derained] = in_threads(read, indices, ahead=_AHEAD)
        for image in read_ahead:
            if image.error is None:
                assert image.rainy is not None
                try:
                    name = test_set.names[image.index]
                    image.image = self._kept(method, test_set, image.index)
                    if image.image is None:
                        with self._surviving(method, test_set, image.index):
                            image.image = method(image.rainy, test_set.name, name, self.run)
                except Exception as error:  # networks of others fail in ways of their own
                    image.error = one_line(error)
            yield image

    @contextmanager
    def _surviving(self, method: Method, test_set: TestSet, index: int) -> Iterator[None]:
        """Count an image as a death while it is derained; whoever lives takes that back."""
        deaths, key = self._deaths(method, test_set, index), f"deaths {self._key(method, test_set, index)}"
        if method.network is not None:
            self.records.add(key, {"times": deaths + 1})
        try:
            yield
        finally:
            if method.network is not None:
                self.records.add(key, {"times": deaths})

    def _deaths(self, method: Method, test_set: TestSet, index: int) -> int:
        record = self.records.get(f"deaths {self._key(method, test_set, index)}")
        return 0 if record is None else int(record["times"])

    def _kept(self, method: Method, test_set: TestSet, index: int) -> RGB | None:
        """The derained image in the folder, if it is the one that was measured."""
        result = self.result(method, test_set, index)
        path = self.image_path(method, test_set, index)
        if result is None or "output" not in result or not path.exists():
            return None
        try:
            image = decode_image(path)
        except DataError:
            image = None
        if image is not None and digest_of(image) == result["output"]:
            return image
        path.unlink()  # of another run, or damaged
        return None

    def _key(self, method: Method, test_set: TestSet, index: int) -> str:
        name = test_set.names[index]
        network = () if method.network is None else (self.run.device.type, self.run.precision)
        identity = (*method.identity, *network, *method.file_identity(test_set.name, name))
        return key_of("score", __version__, identity, test_set.looks[index].digest)

    def _is_done(self, method: Method, test_set: TestSet, index: int) -> bool:
        result = self.result(method, test_set, index)
        if result is None or "output" not in result:
            return False  # what failed is tried again
        have = {*result["figures"], *result["problems"]}
        if any(measure.name not in have for measure in self.measures.of(test_set.paired)):
            return False
        return not self._keeps(method) or self.image_path(method, test_set, index).exists()

    def _keeps(self, method: Method) -> bool:
        return self.save_images and method.options.type != "input"


@dataclass
class _Derained:
    index: int
    rainy: RGB | None = None
    clean: RGB | None = None
    image: RGB | None = None
    error: str | None = None


def digest_of(image: RGB) -> str:
    """A digest of an image's size and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:32]
