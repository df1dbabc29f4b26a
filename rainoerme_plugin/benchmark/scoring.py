"""Deraining and measuring every image by every method; what is done is kept at once, and never done again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from typing_extensions import NotRequired, TypedDict

from ..archs.runner import Runner
from ..data.images import RGB, decode_image, encode_png
from ..data.sources import Track, in_threads, untracked
from ..errors import DataError, one_line
from .measures import Measures
from .methods import Method
from .records import Records, key_of, write_result
from .testsets import TestSet
from .waiting import Waiting, spread_images

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


class Derained(TypedDict):
    """What is kept of a derained image."""

    output: NotRequired[str]
    """A digest of its pixels; missing if there is none."""
    error: NotRequired[str | None]
    """What went wrong."""


class Measured(TypedDict):
    """What is kept of a derained image that was measured."""

    figures: dict[str, float]
    problems: dict[str, str]
    """Why figures are missing."""


class _Deaths(TypedDict):
    times: int


class Scoring:
    """The results of methods on data sets, kept in ``records`` by all that they depend on.

    A derained image depends on the rainy one, the method and its code; its figures depend on its pixels, the rainy and
    the clean image, and the measures' code. So new code for a figure derains nothing that was kept, and new code for a
    network measures nothing whose pixels stayed.

    Args:
        records: What is done already.
        images: The folder for derained images.
        measures: What to measure.
        run: Where networks compute.
        save_images: Whether to keep all derained images.
        waiting: Where networks' other images wait for the report; None: there will be none.
    """

    def __init__(
        self,
        records: Records,
        images: Path,
        measures: Measures,
        run: Runner,
        save_images: bool,
        waiting: Waiting | None = None,
    ) -> None:
        self.records = records
        self.images = images
        self.measures = measures
        self.run = run
        self.save_images = save_images
        self.waiting = waiting

    def derained(self, method: Method, test_set: TestSet, index: int) -> Derained | None:
        """What is known of one derained image; None: nothing yet."""
        return self.records.get(self._key(method, test_set, index), Derained)

    def measured(self, test_set: TestSet, index: int, output: str) -> Measured | None:
        """What is known of the figures of a derained image with this digest; None: nothing yet."""
        return self.records.get(self._figures_key(test_set, index, output), Measured)

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

        def measure(image: _Image) -> tuple[Derained, Measured | None]:
            if image.derained is None or image.rainy is None:
                return {"error": image.error}, None
            output = digest_of(image.derained)
            measured = self.measured(test_set, image.index, output)
            if not self._is_complete(measured, test_set):
                figures, problems = self.measures(image.derained, image.rainy, image.clean)
                measured = {"figures": figures, "problems": problems}
            self._keep(method, test_set, image.index, image.derained)
            return {"output": output}, measured

        with self.run.placed(method.network, method.needs):
            found = in_threads(measure, self._derain(method, test_set, todo), ahead=_AHEAD)
            title = f"{method.name} on {test_set.name}"
            for index, (derained, measured) in zip(todo, track(found, len(todo), title), strict=True):
                if measured is not None:
                    key = self._figures_key(test_set, index, derained["output"])
                    self.records.add(key, {"code": self.measures.code, **measured})
                self.records.add(self._key(method, test_set, index), {"code": method.code, **derained})

    def _keep(self, method: Method, test_set: TestSet, index: int, derained: RGB) -> None:
        path = self.image_path(method, test_set, index)
        # For the report, filters and result images are as quickly had again.
        waiting = None if method.network is None else self.waiting
        if self._keeps(method) or (waiting and index in spread_images(len(test_set), waiting.shown)):
            write_result(path, encode_png(derained))
        elif waiting is not None:
            waiting.add(path.relative_to(self.images), encode_png(derained))

    def picture(self, method: Method, test_set: TestSet, index: int) -> RGB | None:
        """The derained image that was measured: as it was kept, else made again and kept; None: it failed."""
        if "output" not in (self.derained(method, test_set, index) or {}):
            return None
        derained, path = self._kept(method, test_set, index), self.image_path(method, test_set, index)
        if derained is None:
            with self.run.placed(method.network, method.needs):
                (image,) = self._derain(method, test_set, [index])
            derained = image.derained
        if derained is not None and not path.exists():
            write_result(path, encode_png(derained))
        return derained

    def image_path(self, method: Method, test_set: TestSet, index: int) -> Path:
        """Where a derained image is kept."""
        return self.images / method.name / test_set.name / test_set.files[index]

    def _derain(self, method: Method, test_set: TestSet, indices: Sequence[int]) -> Iterator[_Image]:
        def read(index: int) -> _Image:
            try:
                return _Image(index, *test_set.read(index))
            except DataError as error:
                return _Image(index, error=one_line(error))

        read_ahead: Iterable[_Image] = in_threads(read, indices, ahead=_AHEAD)
        for image in read_ahead:
            if image.error is None:
                assert image.rainy is not None
                try:
                    name = test_set.names[image.index]
                    image.derained = self._kept(method, test_set, image.index)
                    if image.derained is None:
                        with self._surviving(method, test_set, image.index):
                            image.derained = method(image.rainy, test_set.name, name, self.run)
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
        record = self.records.get(f"deaths {self._key(method, test_set, index)}", _Deaths)
        return 0 if record is None else record["times"]

    def _kept(self, method: Method, test_set: TestSet, index: int) -> RGB | None:
        """The derained image in the folder, or among those that wait, if it is the one that was measured."""
        result = self.derained(method, test_set, index)
        if result is None or "output" not in result:
            return None
        path = self.image_path(method, test_set, index)
        places = [path] if self.waiting is None else [path, self.waiting.folder / path.relative_to(self.images)]
        for place in places:
            if not place.exists():
                continue
            try:
                image = decode_image(place)
            except DataError:
                image = None
            if image is not None and digest_of(image) == result["output"]:
                return image
            place.unlink()  # of another run, or damaged
        return None

    def _key(self, method: Method, test_set: TestSet, index: int) -> str:
        name = test_set.names[index]
        network = () if method.network is None else (self.run.device.type, self.run.precision)
        identity = (*method.identity, *network, *method.file_identity(test_set.name, name))
        return key_of("derained", method.code, identity, test_set.looks[index].digest)

    def _figures_key(self, test_set: TestSet, index: int, output: str) -> str:
        return key_of("figures", self.measures.code, output, test_set.looks[index].digest)

    def _is_done(self, method: Method, test_set: TestSet, index: int) -> bool:
        result = self.derained(method, test_set, index)
        if result is None or "output" not in result:
            return False  # what failed is tried again
        if not self._is_complete(self.measured(test_set, index, result["output"]), test_set):
            return False
        return not self._keeps(method) or self.image_path(method, test_set, index).exists()

    def _is_complete(self, measured: Measured | None, test_set: TestSet) -> TypeGuard[Measured]:
        """Whether nothing is missing that is to be measured."""
        have = () if measured is None else {*measured["figures"], *measured["problems"]}
        return measured is not None and all(measure.name in have for measure in self.measures.of(test_set.paired))

    def _keeps(self, method: Method) -> bool:
        return self.save_images and method.options.type != "input"


@dataclass
class _Image:
    index: int
    rainy: RGB | None = None
    clean: RGB | None = None
    derained: RGB | None = None
    error: str | None = None


def digest_of(image: RGB) -> str:
    """A digest of an image's size and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:32]
