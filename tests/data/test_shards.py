"""Sharded LMDBs: the same names, sizes, order and training samples as one LMDB; what is missing is told."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rainoerme_plugin.data import lmdb_store
from rainoerme_plugin.data.labels import SoftLabels, ready_labels
from rainoerme_plugin.data.lmdb_store import write_lmdb
from rainoerme_plugin.data.shards import Part, parse_part, whole_of, write_shard
from rainoerme_plugin.data.sources import FolderSource, LmdbSource, open_source
from rainoerme_plugin.data.unpaired import UnpairedRain, collate_rain
from rainoerme_plugin.distillation.filters import OpeningFilter
from rainoerme_plugin.errors import DataError, OptionError

CAPACITY = 1 << 20
COUNT, PARTS, CROP = 11, 4, 16
FILTER = OpeningFilter((3, 5))


def shard(folder: Path, root: Path, part: Part, content: str = "images", decoded: bool = False) -> list[str]:
    source = FolderSource(folder)
    files = ((source.names[index], source.encoded(index)) for index in part.of(len(source)))
    return list(write_shard(root, part, whole_of(source.names, content), files, CAPACITY, decoded))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rainy/ and clean/, each as a folder, one LMDB and shards that were written in any order."""
    root = tmp_path_factory.mktemp("shards")
    for seed, kind in enumerate(("rainy", "clean")):
        (root / kind).mkdir()
        for number in range(COUNT):
            size = (CROP + 3 * number, CROP + 40 - number, 3)
            noise = np.random.default_rng([seed, number]).integers(0, 256, size).astype(np.uint8)
            # Names whose order is not that of their keys.
            Image.fromarray(noise).save(root / kind / f"{'a-b' if number % 2 else 'a'}{number}.x.png")
        source = FolderSource(root / kind)
        files = ((source.names[index], source.encoded(index)) for index in range(COUNT))
        list(write_lmdb(root / f"{kind}_one.lmdb", files, CAPACITY, decoded=True))
        for number in (3, 1, 4, 2):
            shard(root / kind, root / f"{kind}.lmdb", Part(number, PARTS), decoded=True)
    return root


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    """A copy of the rainy shards, to be damaged."""
    lmdb_store._close_all()
    return Path(shutil.copytree(made / "rainy.lmdb", tmp_path / "some.lmdb"))


# --- as one ---


def test_shards_are_read_as_the_one_lmdb_of_all_images(made: Path) -> None:
    one, sharded, folder = LmdbSource(made / "rainy_one.lmdb"), LmdbSource(made / "rainy.lmdb"), made / "rainy"
    assert list(sharded.names) == list(one.names) == [name.partition(".")[0] for name in FolderSource(folder).names]
    assert sharded.sizes().tolist() == one.sizes().tolist() == FolderSource(folder).sizes().tolist()
    for index in range(COUNT):
        assert sharded.encoded(index) == one.encoded(index)
        expected = np.asarray(Image.open(FolderSource(folder).where(index)))
        assert np.array_equal(sharded.read(index), expected)
        assert np.array_equal(sharded.crop(index, 2, 3, 9, 8), expected[2:11, 3:11])
    assert sharded.where(0) == f"{made}/rainy.lmdb/00001-of-00004.lmdb:{one.names[0]}"
    assert sharded.where(COUNT - 1) == f"{made}/rainy.lmdb/00004-of-00004.lmdb:{one.names[-1]}"


def test_each_shard_is_an_lmdb_that_basicsr_reads(made: Path) -> None:
    from basicsr.data.data_util import paths_from_lmdb

    found = [paths_from_lmdb(str(path)) for path in sorted((made / "rainy.lmdb").iterdir())]
    assert [len(keys) for keys in found] == [2, 3, 3, 3]  # 11 in 4 parts, contiguous
    assert list(itertools.chain(*found)) == list(LmdbSource(made / "rainy_one.lmdb").names)


@pytest.mark.parametrize("kind", ["", "_one.lmdb"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_samples_are_those_of_the_folder_and_of_one_lmdb(made: Path, kind: str, workers: int) -> None:
    def stream(ending: str) -> list[dict[str, torch.Tensor]]:
        rainy, clean = (open_source(made / f"{name}{ending}") for name in ("rainy", "clean"))
        dataset = UnpairedRain(rainy, SoftLabels(rainy, FILTER), clean, CROP, seed=3)
        loader = DataLoader(dataset, 4, sampler=range(40), num_workers=workers, collate_fn=collate_rain)
        return list(loader)

    for sample, expected in zip(stream(".lmdb"), stream(kind), strict=True):
        assert all(torch.equal(sample[key], expected[key]) for key in ("rainy", "label", "clean"))


def test_some_of_the_images_are_found_in_their_shards(made: Path) -> None:
    chosen = [10, 0, 5, 5]
    one, sharded = LmdbSource(made / "rainy_one.lmdb").pick(chosen), LmdbSource(made / "rainy.lmdb").pick(chosen)
    again = pickle.loads(pickle.dumps(sharded.pick([3, 1, 0])))
    assert [sharded.encoded(index) for index in range(4)] == [one.encoded(index) for index in range(4)]
    assert [again.encoded(index) for index in range(3)] == [one.encoded(index) for index in (3, 1, 0)]
    assert again.sizes().tolist() == one.sizes()[[3, 1, 0]].tolist()


def test_shards_may_be_labels(made: Path) -> None:
    labels = ready_labels(FolderSource(made / "clean"), made / "clean.lmdb")
    assert np.array_equal(labels.read(4), LmdbSource(made / "clean_one.lmdb").read(4))


# --- memory and open files ---


def open_files() -> int:
    links = (os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
    return sum(path.endswith("data.mdb") for path in links)


def test_open_files_do_not_grow_with_the_shards(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "_MOST_OPEN", 2)
    lmdb_store._close_all()
    source, one = LmdbSource(made / "rainy.lmdb"), FolderSource(made / "rainy")
    for index in np.random.default_rng(0).permutation(np.repeat(np.arange(COUNT), 5)).tolist():
        assert np.array_equal(source.read(index), one.read(index))
        assert open_files() <= 2
    assert open_files() == len(lmdb_store._environments) == 2
    source.encoded(0)
    source.encoded(COUNT - 1)
    source.encoded(0)
    source.encoded(4)  # what was used longest ago is closed
    assert [key[-20:-5] for key in lmdb_store._environments] == ["/00001-of-00004", "/00002-of-00004"]


def test_what_is_being_read_stays_open(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "_MOST_OPEN", 1)
    lmdb_store._close_all()
    source = LmdbSource(made / "rainy.lmdb")
    with source._reader(0).view(source.names[0]) as data:
        others = [source.encoded(index) for index in (4, 7, 10)]
        assert bytes(data) == LmdbSource(made / "rainy_one.lmdb").encoded(0)
        assert source._reader(0).root.as_posix() in lmdb_store._environments
    assert others == [LmdbSource(made / "rainy_one.lmdb").encoded(index) for index in (4, 7, 10)]


def test_threads_may_read_more_shards_than_may_be_open(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "_MOST_OPEN", 1)
    source, expected = LmdbSource(made / "rainy.lmdb"), FolderSource(made / "rainy")
    wrong: list[int] = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, COUNT, 200).tolist():
            if not np.array_equal(source.read(index), images[index]):
                wrong.append(index)

    images = [expected.read(index) for index in range(COUNT)]
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not lmdb_store._readers


# --- what is wrong with shards ---


def damaged_record(root: Path, **changes: object) -> None:
    path = root / "00002-of-00004.lmdb" / "part.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda root: shutil.rmtree(root / "00003-of-00004.lmdb"),
        r"some\.lmdb: 1 of 4 shards are not there: 3; make them, by --part 3/4",
    ),
    (
        lambda root: (root / "00002-of-00004.lmdb").rename(root / "00002-of-00004.lmdb.partial"),
        r"some\.lmdb: 1 of 4 shards are not there: 2 \(half-written\); make",
    ),
    (
        lambda root: (root / "00004-of-00004.lmdb").rename(root / "00005-of-00004.lmdb"),
        r"some\.lmdb: 00005-of-00004\.lmdb is no part of 4; remove it",
    ),
    (
        lambda root: shutil.copytree(root / "00002-of-00004.lmdb", root / "00002-of-00008.lmdb"),
        r"some\.lmdb: holds shards of 4 parts and others of 8; remove those of one kind",
    ),
    (
        lambda root: shutil.copytree(root / "00002-of-00004.lmdb", root / "copy.lmdb"),
        r"some\.lmdb: copy\.lmdb is no shard; remove it",
    ),
    (
        lambda root: shutil.copy(root / "00002-of-00004.lmdb" / "data.mdb", root),
        r"some\.lmdb: data\.mdb is no shard; remove it, or the shards",
    ),
    (
        lambda root: (root / "00002-of-00004.lmdb" / "part.json").unlink(),
        r"00002-of-00004\.lmdb: its part\.json is missing or damaged; remove the shard and make it again",
    ),
    (lambda root: damaged_record(root, images="Infinity"), r"00002-of-00004\.lmdb: its part\.json is missing or"),
    (
        lambda root: (root / "00002-of-00004.lmdb" / "part.json").write_text('{"content": 1, "images": Infinity}'),
        r"00002-of-00004\.lmdb: its part\.json is missing or damaged",
    ),
    (
        lambda root: damaged_record(root, images=12),
        r"00002-of-00004\.lmdb: is a part of 12 images, not 11 as 00001-of-00004\.lmdb; remove it and make it again",
    ),
    (
        lambda root: damaged_record(root, content="labels"),
        r"00002-of-00004\.lmdb: is a part of labels, not images as 0",
    ),
    (
        lambda root: damaged_record(root, names="0"),
        r"00002-of-00004\.lmdb: is a part of as many images of other names",
    ),
    (
        lambda root: (root / "00002-of-00004.lmdb" / "meta_info.txt").unlink(),
        r"00002-of-00004\.lmdb: its meta_info\.txt cannot be read",
    ),
    (
        lambda root: (root / "00002-of-00004.lmdb" / "data.mdb").write_bytes(b"garbage" * 5000),
        r"00002-of-00004\.lmdb: cannot be opened as an LMDB",
    ),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[str(number) for number in range(len(DAMAGE))])
def test_a_missing_extra_or_damaged_shard_is_named(
    shards: Path, damage: Callable[[Path], object], message: str
) -> None:
    assert len(LmdbSource(shards)) == COUNT
    lmdb_store._close_all()
    damage(shards)
    with pytest.raises(DataError, match=message):
        open_source(shards)


def test_a_shard_in_the_place_of_another_is_refused(shards: Path) -> None:
    lmdb_store._close_all()
    shutil.rmtree(shards / "00001-of-00004.lmdb")
    shutil.copytree(shards / "00002-of-00004.lmdb", shards / "00001-of-00004.lmdb")
    with pytest.raises(DataError, match=r"its shards hold 12 images, but should hold 11; make them again"):
        LmdbSource(shards)


def test_of_many_missing_shards_the_first_are_named(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made / "rainy.lmdb" / "00001-of-00004.lmdb", tmp_path / "some.lmdb" / "00001-of-00064.lmdb")
    with pytest.raises(DataError, match=r"63 of 64 shards are not there: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, \.\.\.; make"):
        LmdbSource(tmp_path / "some.lmdb")


# --- writing ---


@pytest.mark.parametrize("length", [1, 7, 64, 101])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_parts_are_contiguous_and_alike_in_length(length: int, count: int) -> None:
    parts = [Part(number, count) for number in range(1, count + 1)]
    if length < count:
        with pytest.raises(OptionError, match=rf"--part 1/{count}: {length} images? cannot be in {count} parts; take"):
            parts[0].of(length)
        return
    ranges = [part.of(length) for part in parts]
    assert list(itertools.chain(*ranges)) == list(range(length))
    assert {len(numbers) for numbers in ranges} <= {length // count, length // count + 1}


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1/100000", "1.0/4", " 1/4", "٣/4"]
)
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"expected K/N with K from 1 to N and N up to 99999, such as 3/16"):
        parse_part(text)
    assert parse_part("3/16") == Part(3, 16)


def test_an_interrupted_shard_is_gone_on_from_and_a_finished_one_left(made: Path, tmp_path: Path) -> None:
    source, root, part = FolderSource(made / "rainy"), tmp_path / "some.lmdb", Part(2, 2)
    whole = whole_of(source.names, "images")
    files = [(source.names[index], source.encoded(index)) for index in part.of(COUNT)]
    first = write_shard(root, part, whole, files, CAPACITY)
    assert list(itertools.islice(first, 2)) == [name for name, _ in files[:2]]
    first.close()
    with pytest.raises(
        DataError, match=r"2 of 2 shards are not there: 1, 2 \(half-written\); make them, by --part 1/2"
    ):
        LmdbSource(root)
    assert shard(made / "rainy", root, part) == [name for name, _ in files]
    before = (root / part.name / "data.mdb").stat().st_mtime_ns
    assert shard(made / "rainy", root, part) == []
    assert (root / part.name / "data.mdb").stat().st_mtime_ns == before
    shard(made / "rainy", root, Part(1, 2))
    assert len(LmdbSource(root)) == COUNT
    assert sorted(path.name for path in root.iterdir()) == ["00001-of-00002.lmdb", "00002-of-00002.lmdb"]


def test_a_writer_refuses_what_is_not_its_own(made: Path, shards: Path, tmp_path: Path) -> None:
    def refused(message: str, folder: Path = made / "rainy", count: int = 4, content: str = "images") -> None:
        with pytest.raises(DataError, match=message):
            shard(folder, shards, Part(2, count), content)

    shutil.rmtree(shards / "00002-of-00004.lmdb")
    refused(r"holds 0000\d-of-00004\.lmdb, of other parts than 2/3; remove it, or choose", count=3)
    refused(r"00001-of-00004\.lmdb: is a part of images, not labels as part 2/4 is to be; remove it", content="labels")
    fewer = Path(shutil.copytree(made / "rainy", tmp_path / "fewer"))
    os.rename(fewer / FolderSource(fewer).names[0], fewer / "zz.png")
    refused(r"00001-of-00004\.lmdb: is a part of as many images of other names, not the same as part 2/4", fewer)
    (fewer / "zz.png").unlink()
    refused(r"00001-of-00004\.lmdb: is a part of 11 images, not 10 as part 2/4", fewer)
    assert not (shards / "00002-of-00004.lmdb").exists()
    assert shard(made / "rainy", shards, Part(2, 4)) == FolderSource(made / "rainy").names[2:5]
    with pytest.raises(DataError, match=r"rainy_one\.lmdb is an LMDB in one piece; remove it, or choose another name"):
        shard(made / "rainy", made / "rainy_one.lmdb", Part(1, 2))


@pytest.mark.parametrize("apart", [1, 6])
def test_two_names_with_one_key_are_refused_though_in_two_shards(apart: int) -> None:
    names = [f"a-{number}.png" for number in range(apart)]
    with pytest.raises(DataError, match=r"a\.png and a\.jpg have one key, 'a'; rename one of them"):
        whole_of(["a.jpg", *names, "a.png"], "images")
    assert whole_of(["a.jpg", *names], "images").images == apart + 1


def test_names_whose_hashes_meet_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from rainoerme_plugin.data import shards

    monkeypatch.setattr(shards, "hash", lambda _: 7, raising=False)
    assert whole_of(["a.png", "b.png", "c.png"], "images").images == 3


def test_the_digest_tells_names_and_their_order() -> None:
    found = {whole_of(names, "images").names for names in (["a", "b"], ["b", "a"], ["a", "c"], ["ab", "c"], ["ab"])}
    assert len(found) == 5


def test_the_environments_of_shards_are_closed_before_a_fork(made: Path) -> None:
    source = LmdbSource(made / "rainy.lmdb")
    expected = [source.encoded(index) for index in range(COUNT)]
    child = os.fork()
    if child == 0:
        os._exit(0 if [source.encoded(index) for index in range(COUNT)] == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with lmdb.open(str(made / "clean.lmdb" / "00001-of-00004.lmdb"), readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == 2
