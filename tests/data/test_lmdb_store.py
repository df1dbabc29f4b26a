"""LMDBs: BasicSR reads ours, we read BasicSR's, and what is interrupted or damaged is told."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rainoerme_plugin.data import lmdb_store
from rainoerme_plugin.data.lmdb_store import LmdbReader, write_lmdb
from rainoerme_plugin.data.sources import LmdbSource, in_threads
from rainoerme_plugin.errors import DataError, RainOerMeError

CAPACITY = 1 << 20


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9 + seed, 16, 3)).astype(np.uint8)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = [(f"{name}.png", png(seed)) for seed, name in enumerate(("b", "a", "sub/c", "d-1", "e"))]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An LMDB of five images."""
    root = tmp_path / "some.lmdb"
    assert list(write_lmdb(root, IMAGES, CAPACITY)) == [name for name, _ in IMAGES]
    return root


def contents(root: Path) -> dict[str, bytes]:
    """What an LMDB holds, by the lmdb module alone."""
    with lmdb.open(str(root), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}


# --- together with BasicSR ---


def test_basicsr_reads_what_is_written(store: Path) -> None:
    from basicsr.data.data_util import paths_from_lmdb
    from basicsr.utils import FileClient, imfrombytes

    keys = paths_from_lmdb(str(store))
    assert keys == ["b", "a", "sub/c", "d-1", "e"]
    client = FileClient("lmdb", db_paths=[str(store)], client_keys=["lq"])
    for seed, key in enumerate(keys):
        assert np.array_equal(imfrombytes(client.get(key, "lq"))[..., ::-1], pixels(seed))
    client.client._client["lq"].close()


def test_the_list_of_images_is_in_basicsrs_format(store: Path) -> None:
    assert (store / "meta_info.txt").read_text().splitlines() == [
        "b.png (9,16,3) 1",
        "a.png (10,16,3) 1",
        "sub/c.png (11,16,3) 1",
        "d-1.png (12,16,3) 1",
        "e.png (13,16,3) 1",
    ]


def test_what_basicsr_makes_of_a_folder_is_read(tmp_path: Path) -> None:
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    for seed, key in enumerate("xy"):
        Image.fromarray(pixels(seed)).save(tmp_path / f"{key}.png")
    root = tmp_path / "stock.lmdb"
    make_lmdb_from_imgs(str(tmp_path), str(root), ["x.png", "y.png"], ["x", "y"], map_size=CAPACITY)
    source = LmdbSource(root)
    assert list(source.names) == ["x", "y"]
    for seed in range(2):
        assert np.array_equal(source.read(seed), pixels(seed))
        assert source.sizes()[seed].tolist() == [9 + seed, 16]


def test_what_basicsrs_lmdb_maker_writes_is_read(tmp_path: Path) -> None:
    from basicsr.utils.lmdb_util import LmdbMaker

    maker = LmdbMaker(str(tmp_path / "stock.lmdb"), map_size=CAPACITY)
    maker.put(png(3), "deep/er/k", (12, 16, 3))
    maker.close()
    source = LmdbSource(tmp_path / "stock.lmdb")
    assert list(source.names) == ["deep/er/k"]
    assert source.encoded(0) == png(3)


# --- reading ---


def test_a_source_gives_the_images_in_the_order_they_were_written(store: Path) -> None:
    source = LmdbSource(str(store))
    assert len(source) == 5
    assert list(source.names) == ["b", "a", "sub/c", "d-1", "e"]
    for seed in range(5):
        assert np.array_equal(source.read(seed), pixels(seed))
        assert source.encoded(seed) == IMAGES[seed][1]
        assert source.sizes()[seed].tolist() == [9 + seed, 16]
    assert source.where(2) == f"{store}:sub/c"


def test_files_are_kept_as_they_were_encoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels(0)[..., 0]).save(buffer, "JPEG")
    list(write_lmdb(tmp_path / "x.lmdb", [("photo.jpg", buffer.getvalue())], CAPACITY))
    assert LmdbReader(tmp_path / "x.lmdb").get("photo") == buffer.getvalue()
    assert (tmp_path / "x.lmdb" / "meta_info.txt").read_text() == "photo.jpg (9,16,3) 1\n"


def test_two_readers_share_one_lmdb_also_under_another_path(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link.lmdb").symlink_to(store)
    readers = [LmdbReader(store), LmdbReader(store), LmdbReader(tmp_path / "link.lmdb")]
    assert [reader.get("e") for reader in readers] == [png(4)] * 3


def test_a_source_travels_to_another_process_as_its_path(store: Path) -> None:
    travelled = pickle.loads(pickle.dumps(LmdbSource(store)))
    assert np.array_equal(travelled.read(1), pixels(1))


class Read(Dataset[torch.Tensor]):
    """The images of a source as they are."""

    def __init__(self, source: LmdbSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.source.read(index).copy())


def test_loader_workers_and_their_parent_read_one_lmdb(store: Path) -> None:
    source = LmdbSource(store)
    assert source.encoded(0) == png(0)  # the parent has it open when the workers are forked
    loader = DataLoader(Read(source), batch_size=None, num_workers=2)
    batches = zip(iter(loader), iter(DataLoader(Read(LmdbSource(store)), batch_size=None, num_workers=1)), strict=True)
    for seed, (image, again) in enumerate(batches):
        assert np.array_equal(image.numpy(), pixels(seed))
        assert np.array_equal(again.numpy(), pixels(seed))
        assert source.encoded(seed) == png(seed)


def test_a_forked_process_has_no_environment_of_its_parents(store: Path) -> None:
    source = LmdbSource(store)
    assert source.encoded(0) == png(0)
    child = os.fork()
    if child == 0:
        try:
            lmdb.open(str(store), readonly=True, lock=False)  # refused where the parent's is still open
        except lmdb.Error:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert source.encoded(1) == png(1)


def test_threads_may_be_the_first_to_read_after_a_fork(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = LmdbSource(store)
    child = os.fork()  # closes the environment in the parent
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    meet = threading.Barrier(2)
    opened = lmdb.open
    calls: list[tuple[Any, ...]] = []

    def open_together(*arguments: Any, **options: Any) -> lmdb.Environment:
        calls.append(arguments)
        with suppress(threading.BrokenBarrierError):
            meet.wait(0.5)  # as long as a second one may need to come in here too
        return opened(*arguments, **options)

    monkeypatch.setattr(lmdb_store.lmdb, "open", open_together)
    assert list(in_threads(source.encoded, range(5))) == [data for _, data in IMAGES]
    assert len(calls) == 1


# --- sizes and crops ---


def test_sizes_come_from_the_list_of_images_and_no_image_is_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LmdbReader, "view", None)
    sizes = LmdbSource(store).sizes()
    assert sizes.dtype == np.int32
    assert sizes.tolist() == [[9 + seed, 16] for seed in range(5)]


@pytest.mark.parametrize(
    "line", ["a.png", "a.png (10,16) 1", "a.png (0,0,3) 1", "a.png (9999999,16,3) 1", "a.png (x,y,3)"]
)
def test_a_size_that_the_list_does_not_tell_comes_from_the_image(store: Path, line: str) -> None:
    text = (store / "meta_info.txt").read_text()
    (store / "meta_info.txt").write_text(text.replace("a.png (10,16,3) 1", line))
    source = LmdbSource(store)
    assert list(source.names) == ["b", "a", "sub/c", "d-1", "e"]
    assert source.sizes().tolist() == [[9 + seed, 16] for seed in range(5)]
    picked = source.pick([3, 1])
    assert list(picked.names) == ["d-1", "a"]
    assert picked.sizes().tolist() == [[12, 16], [10, 16]]
    assert np.array_equal(picked.read(1), pixels(1))


def test_a_name_may_look_like_a_size(tmp_path: Path) -> None:
    name = "x (1,2,3) 4.png"
    list(write_lmdb(tmp_path / "x.lmdb", [(name, png(0))], CAPACITY))
    source = LmdbSource(tmp_path / "x.lmdb")
    assert source.sizes().tolist() == [[9, 16]]
    assert np.array_equal(source.read(0), pixels(0))


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    """The same images, stored without compression."""
    root = tmp_path / "decoded.lmdb"
    list(write_lmdb(root, IMAGES, CAPACITY, decoded=True))
    return root


def test_basicsr_reads_decoded_images(decoded: Path) -> None:
    from basicsr.data.data_util import paths_from_lmdb
    from basicsr.utils import FileClient, imfrombytes

    client = FileClient("lmdb", db_paths=[str(decoded)], client_keys=["lq"])
    for seed, key in enumerate(paths_from_lmdb(str(decoded))):
        assert np.array_equal(imfrombytes(client.get(key, "lq"))[..., ::-1], pixels(seed))
    client.client._client["lq"].close()


def test_crops_are_the_same_from_encoded_and_decoded_images(store: Path, decoded: Path) -> None:
    for source in (LmdbSource(store), LmdbSource(decoded)):
        for seed in range(5):
            assert np.array_equal(source.crop(seed, 2, 3, 7, 11), pixels(seed)[2:9, 3:14])
            assert np.array_equal(source.crop(seed, 0, 0, 9 + seed, 16), pixels(seed))


def test_a_crop_of_a_decoded_image_decodes_nothing(decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LmdbSource, "read", None)
    assert np.array_equal(LmdbSource(decoded).crop(1, 2, 3, 7, 11), pixels(1)[2:9, 3:14])


def test_pixels_are_stored_as_png_or_bmp(tmp_path: Path) -> None:
    for kind in (False, True):
        list(write_lmdb(tmp_path / f"{kind}.lmdb", [("a.png", pixels(0))], CAPACITY, decoded=kind))
        assert np.array_equal(LmdbSource(tmp_path / f"{kind}.lmdb").read(0), pixels(0))
    assert LmdbSource(tmp_path / "False.lmdb").encoded(0)[:4] == b"\x89PNG"
    assert LmdbSource(tmp_path / "True.lmdb").encoded(0)[:2] == b"BM"


def test_a_damaged_decoded_image_is_named_by_its_key(decoded: Path) -> None:
    data = LmdbReader(decoded).get("a")
    with pytest.raises(DataError, match=r"decoded\.lmdb:a: damaged image"):
        _with(decoded, b"a", data[:-40]).crop(1, 0, 0, 4, 4)
    with pytest.raises(DataError, match=r"decoded\.lmdb:a: not an image"):
        _with(decoded, b"a", b"BM" + bytes(100)).crop(1, 0, 0, 4, 4)
    # A grey BMP is another layout, and decoded.
    buffer = io.BytesIO()
    Image.fromarray(pixels(1)[..., 0]).save(buffer, "BMP")
    assert np.array_equal(_with(decoded, b"a", buffer.getvalue()).crop(1, 2, 3, 4, 5)[..., 1], pixels(1)[2:6, 3:8, 0])


@pytest.mark.parametrize("kind", ["store", "decoded"])
def test_a_size_in_the_list_that_is_too_large_is_told(request: pytest.FixtureRequest, kind: str) -> None:
    root = request.getfixturevalue(kind)
    text = (root / "meta_info.txt").read_text()
    (root / "meta_info.txt").write_text(text.replace("(10,16,3)", "(30,16,3)"))
    source = LmdbSource(root)
    assert source.sizes()[1].tolist() == [30, 16]
    with pytest.raises(
        DataError, match=r"lmdb:a: is of 16x10 pixels, less than when it was listed; if it is in an LMDB"
    ):
        source.crop(1, 20, 0, 8, 8)


def test_a_fork_waits_for_threads_that_read(store: Path) -> None:
    reader = LmdbReader(store)
    reading, forked = threading.Event(), threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        with reader.view("e") as data:
            reading.set()
            forked.wait(0.3)  # the environment may not be closed in the meantime
            seen.append(bytes(data))

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if reader.get("e") == png(4) else 1)
    assert seen == [png(4)]
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reader.get("a") == png(1)


# --- what is wrong with an LMDB ---


def test_a_folder_without_an_lmdb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no LMDB \(a folder with data\.mdb\) at .*some\.lmdb \(looked from "):
        LmdbReader(tmp_path / "some.lmdb")


def test_a_missing_list_of_images_is_refused(store: Path) -> None:
    (store / "meta_info.txt").unlink()
    with pytest.raises(DataError, match=r"some\.lmdb: its meta_info\.txt cannot be read .*; make the LMDB again"):
        LmdbReader(store)


def test_a_list_that_is_no_text_is_refused(store: Path) -> None:
    (store / "meta_info.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"meta_info\.txt cannot be read"):
        LmdbReader(store)


def test_an_empty_list_is_refused(store: Path) -> None:
    (store / "meta_info.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"some\.lmdb: meta_info\.txt lists no images; make the LMDB again"):
        LmdbReader(store)


@pytest.mark.parametrize("lines", [4, 6])
def test_a_list_of_another_length_is_refused(store: Path, lines: int) -> None:
    listed = [*(store / "meta_info.txt").read_text().splitlines(), "f.png (9,16,3) 1"][:lines]
    (store / "meta_info.txt").write_text("\n".join(listed) + "\n")
    with pytest.raises(DataError, match=rf"meta_info\.txt lists {lines} images, but it holds 5; make it again"):
        LmdbReader(store)


def test_an_image_that_is_listed_but_not_there_is_named(store: Path) -> None:
    text = (store / "meta_info.txt").read_text()
    (store / "meta_info.txt").write_text(text.replace("d-1.png", "other.png"))
    with pytest.raises(DataError, match=r"some\.lmdb: no image under the key 'other'; make the LMDB again"):
        LmdbReader(store).get("other")


@pytest.mark.parametrize("damaged", [b"", b"short", np.random.default_rng(0).bytes(40_000)])
def test_a_data_file_of_garbage_is_refused(store: Path, damaged: bytes) -> None:
    (store / "data.mdb").write_bytes(damaged)
    lmdb_store._close_all()
    with pytest.raises(DataError, match=r"some\.lmdb: cannot be opened as an LMDB .*; make it again"):
        LmdbReader(store)


def test_damage_behind_the_first_pages_is_told_when_read(store: Path) -> None:
    data = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data[:8192] + bytes(len(data) - 8192))
    with pytest.raises(DataError, match=r"some\.lmdb: damaged LMDB .*; make it again"):
        LmdbReader(store).get("a")


def test_a_damaged_image_in_an_lmdb_is_named_by_its_key(store: Path) -> None:
    environment = lmdb.open(str(store), map_size=CAPACITY, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", png(1)[:-30])
    environment.close()
    source = LmdbSource(store)
    with pytest.raises(DataError, match=r"some\.lmdb:a: damaged image"):
        source.read(1)
    with pytest.raises(DataError, match=r"some\.lmdb:a: not an image"):
        _with(store, b"a", b"nothing").read(1)


def _with(store: Path, key: bytes, value: bytes) -> LmdbSource:
    lmdb_store._close_all()
    environment = lmdb.open(str(store), map_size=CAPACITY, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(key, value)
    environment.close()
    return LmdbSource(store)


def test_a_data_file_cut_short_is_refused(store: Path) -> None:
    data = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data[:-4096])
    # In a process of its own: reading a page that is not there would kill it.
    script = (
        "import sys\n"
        "from rainoerme_plugin.data.lmdb_store import LmdbReader\n"
        "from rainoerme_plugin.errors import DataError\n"
        "try:\n"
        "    reader = LmdbReader(sys.argv[1])\n"
        "    [reader.get(key) for key in reader.keys]\n"
        "except DataError as error:\n"
        "    sys.exit(str(error))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(store)], capture_output=True, text=True)
    assert ended.returncode == 1
    assert f"{store}: damaged LMDB (data.mdb ends too early); make it again" in ended.stderr


# --- writing ---


def test_writing_leaves_only_the_finished_lmdb(store: Path) -> None:
    assert sorted(path.name for path in store.parent.iterdir()) == ["some.lmdb"]
    assert contents(store) == {name.removesuffix(".png"): data for name, data in IMAGES}


def test_an_existing_target_is_left_alone(store: Path) -> None:
    before = (store / "data.mdb").read_bytes()
    with pytest.raises(DataError, match=r"some\.lmdb exists already; remove it, or choose another name"):
        next(write_lmdb(store, [("z.png", png(9))], CAPACITY))
    assert (store / "data.mdb").read_bytes() == before
    assert not store.with_name("some.lmdb.partial").exists()


@pytest.mark.parametrize("commit_every", [1, 2, 256])
def test_an_interrupted_run_goes_on(tmp_path: Path, commit_every: int) -> None:
    root, partial = tmp_path / "some.lmdb", tmp_path / "some.lmdb.partial"
    first = write_lmdb(root, IMAGES, CAPACITY, commit_every)
    assert list(itertools.islice(first, 3)) == ["b.png", "a.png", "sub/c.png"]
    first.close()
    assert not root.exists()
    assert set(contents(partial)) == {"b", "a", "sub/c"}
    assert list(write_lmdb(root, IMAGES, CAPACITY, commit_every)) == [name for name, _ in IMAGES]
    assert not partial.exists()
    source = LmdbSource(root)
    assert [source.encoded(index) for index in range(5)] == [data for _, data in IMAGES]


def test_what_was_committed_survives_a_killed_process(tmp_path: Path) -> None:
    root = tmp_path / "some.lmdb"
    child = os.fork()
    if child == 0:
        for name in write_lmdb(root, IMAGES, CAPACITY, commit_every=2):
            if name == "d-1.png":
                os._exit(0)  # before the second pair is committed
    os.waitpid(child, 0)
    assert {"b", "a"} <= set(contents(tmp_path / "some.lmdb.partial"))
    list(write_lmdb(root, IMAGES, CAPACITY))
    assert contents(root) == {name.removesuffix(".png"): data for name, data in IMAGES}


def test_a_killed_writer_leaves_no_lmdb_and_is_gone_on_from(tmp_path: Path) -> None:
    root, partial = tmp_path / "some.lmdb", tmp_path / "some.lmdb.partial"
    script = (
        "import sys, pickle, time\n"
        "from pathlib import Path\n"
        "from rainoerme_plugin.data.lmdb_store import write_lmdb\n"
        "for name in write_lmdb(Path(sys.argv[1]), pickle.load(sys.stdin.buffer), 1 << 20, commit_every=2):\n"
        "    print(name, flush=True)\n"
        "    if name == 'd-1.png':\n"
        "        time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(pickle.dumps(IMAGES))
        writer.stdin.close()
        assert [writer.stdout.readline().split()[0] for _ in range(4)] == [b"b.png", b"a.png", b"sub/c.png", b"d-1.png"]
        try:
            with pytest.raises(RainOerMeError, match=r"some\.lmdb\.partial is in use by process \d+ on "):
                list(write_lmdb(root, IMAGES, CAPACITY))
        finally:
            writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [".some.lmdb.partial.lock", "some.lmdb.partial"]
    assert {"b", "a"} <= set(contents(partial))
    assert list(write_lmdb(root, IMAGES, CAPACITY, commit_every=2)) == [name for name, _ in IMAGES]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.lmdb"]
    assert contents(root) == {name.removesuffix(".png"): data for name, data in IMAGES}


def test_all_is_on_the_disk_before_the_lmdb_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    fsync, root = os.fsync, tmp_path / "some.lmdb"

    def note(handle: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{handle}")).name, root.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    list(write_lmdb(root, IMAGES, CAPACITY))
    names = [("temporary" if name.startswith(".") else name, there) for name, there in synced]
    assert names == [("temporary", False), ("some.lmdb.partial", False), (tmp_path.name, True)]


def test_an_lmdb_that_appears_while_another_was_waited_for_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "some.lmdb"
    mkdir = Path.mkdir

    def appear(path: Path, **options: Any) -> None:
        mkdir(path, **options)
        mkdir(root, exist_ok=True)

    monkeypatch.setattr(Path, "mkdir", appear)
    with pytest.raises(DataError, match=r"some\.lmdb exists already"):
        list(write_lmdb(root, IMAGES, CAPACITY))
    assert list(root.iterdir()) == []


def test_too_little_room_is_told_and_what_is_written_stays(tmp_path: Path) -> None:
    many = [(f"{number}.png", np.random.default_rng(number).bytes(100)) for number in range(3)]
    large = [(name, np.zeros((3000, 3000, 3), np.uint8)) for name, _ in many]
    with pytest.raises(DataError, match=r"some\.lmdb\.partial: cannot be written \(.*\); make room and run again"):
        list(write_lmdb(tmp_path / "some.lmdb", large * 1, 0, commit_every=1, decoded=True))
    assert set(contents(tmp_path / "some.lmdb.partial")) == {"0", "1"}


def test_names_whose_hashes_meet_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "hash", lambda _: 7, raising=False)
    list(write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY))
    assert len(LmdbSource(tmp_path / "some.lmdb")) == 5
    with pytest.raises(DataError, match=r"e\.jpg and e\.png have one key, 'e'"):
        list(write_lmdb(tmp_path / "other.lmdb", [*IMAGES, ("e.jpg", png(0))], CAPACITY))


@pytest.mark.parametrize("decoded", [False, True])
def test_all_cores_decode_but_only_some_images_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: bool
) -> None:
    drawn = 0

    def images() -> Iterator[tuple[str, bytes]]:
        nonlocal drawn
        for number in range(200):
            drawn += 1
            yield f"{number:03}.png", png(0)

    names = write_lmdb(tmp_path / "some.lmdb", images(), CAPACITY, decoded=decoded)
    for count, name in enumerate(itertools.islice(names, 50), 1):
        assert name == f"{count - 1:03}.png"
        assert drawn <= count + lmdb_store._AHEAD + 1
    names.close()
    assert len(contents(tmp_path / "some.lmdb.partial")) == 50


def test_an_image_that_changed_since_the_interruption_is_written_anew(tmp_path: Path) -> None:
    first = write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY)
    list(itertools.islice(first, 3))
    first.close()
    changed = [("b.png", png(20)), *IMAGES[1:]]
    list(write_lmdb(tmp_path / "some.lmdb", changed, CAPACITY))
    assert LmdbReader(tmp_path / "some.lmdb").get("b") == png(20)


def test_images_that_went_since_the_interruption_start_it_over(tmp_path: Path) -> None:
    first = write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY)
    list(itertools.islice(first, 3))
    first.close()
    with pytest.raises(DataError, match=r"partial held images that are no longer in the folder; removed it, run again"):
        list(write_lmdb(tmp_path / "some.lmdb", IMAGES[1:], CAPACITY))
    assert not list(tmp_path.iterdir())
    list(write_lmdb(tmp_path / "some.lmdb", IMAGES[1:], CAPACITY))
    assert len(LmdbSource(tmp_path / "some.lmdb")) == 4


def test_damaged_leftovers_are_named(tmp_path: Path) -> None:
    partial = tmp_path / "some.lmdb.partial"
    partial.mkdir()
    (partial / "data.mdb").write_bytes(b"garbage" * 2000)
    with pytest.raises(DataError, match=r"some\.lmdb\.partial: left over and damaged .*; remove it and run again"):
        list(write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY))
    shutil.rmtree(partial)
    assert len(list(write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY))) == 5


@pytest.mark.parametrize("second", ["a.jpg", "a.b.png"])
def test_two_names_with_one_key_are_refused_by_name(tmp_path: Path, second: str) -> None:
    images = [("a.png", png(0)), (second, png(1))]
    with pytest.raises(DataError, match=rf"{second} and a\.png have one key, 'a'; rename one of them"):
        list(write_lmdb(tmp_path / "some.lmdb", images, CAPACITY))
    assert not (tmp_path / "some.lmdb").exists()


def test_a_broken_image_stops_it_and_keeps_what_was_written(tmp_path: Path) -> None:
    images = [*IMAGES[:2], ("sub/c.png", png(2)[:-30]), *IMAGES[3:]]
    with pytest.raises(DataError, match=r"sub/c\.png: damaged image"):
        list(write_lmdb(tmp_path / "some.lmdb", images, CAPACITY))
    assert set(contents(tmp_path / "some.lmdb.partial")) == {"b", "a"}
    list(write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY))
    assert len(LmdbSource(tmp_path / "some.lmdb")) == 5


def test_a_folder_that_is_no_half_written_lmdb_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / "some.lmdb.partial"
    partial.mkdir()
    (partial / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"some\.lmdb\.partial: holds other files .* \(notes\.txt\); move it away"):
        list(write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY))
    assert [path.name for path in partial.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("mask", [0o077, 0o022])
def test_the_umask_decides_on_the_modes(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        list(write_lmdb(tmp_path / "some.lmdb", IMAGES, CAPACITY))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "some.lmdb").iterdir()}
    assert modes == dict.fromkeys(("data.mdb", "meta_info.txt"), 0o666 & ~mask)
    assert (tmp_path / "some.lmdb").stat().st_mode & 0o777 == 0o777 & ~mask
    assert len(LmdbSource(tmp_path / "some.lmdb")) == len(IMAGES)


def test_an_lmdb_may_have_a_long_name(tmp_path: Path) -> None:
    root = tmp_path / ("x" * 246 + ".lmdb")
    list(write_lmdb(root, IMAGES, CAPACITY))
    assert list(tmp_path.iterdir()) == [root]
