"""Damaged checkpoints, and those made to do harm: loaded or refused in one line; nothing runs, hangs, fills memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from damage import damaged, in_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rainoerme_plugin.archs.rainoerme import RainOerMeNet
from rainoerme_plugin.archs.recognise import find_own, recognise
from rainoerme_plugin.checkpoint_files import read_checkpoint
from rainoerme_plugin.errors import WeightsError
from rainoerme_plugin.pickles import UnsafePickle, check_pickle
from rainoerme_plugin.registered.networks import PretrainedNet
from rainoerme_plugin.weights import Loaded, find_state_dict, load_weights

WEIGHT = "inc.0.weight"


def network() -> RainOerMeNet:
    torch.manual_seed(0)
    return RainOerMeNet(4)


def saved(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def training_state() -> dict[str, Any]:
    net = network()
    optimiser = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2, 3])
    return {
        "iter": 3,
        "epoch": 0,
        "optimizers": [optimiser.state_dict()],
        "schedulers": [schedule.state_dict()],
        "words": OrderedDict(a=[1, 2.5, None, True, ("x", b"bytes"), {7}, torch.Size([3]), torch.float16]),
    }


@lru_cache(maxsize=1)
def originals() -> dict[str, bytes]:
    weights = network().state_dict()
    return {
        "zip.pth": saved({"params": weights}),
        "legacy.pth": saved({"params": weights}, legacy=True),
        "zip.state": saved(training_state()),
        "legacy.state": saved(training_state(), legacy=True),
        "some.safetensors": safetensors.torch.save(weights),
    }


def try_all(path: Path) -> Counter[bool]:
    """Read a file in every way; whether each gave weights, or else one line that names the file."""
    ended: Counter[bool] = Counter()
    ways: tuple[Callable[[], object], ...] = (
        lambda: load_weights(network(), path),
        lambda: load_weights(network(), path, strict=False),
        lambda: PretrainedNet(str(path)),
        lambda: read_checkpoint(path),
    )
    told = []
    for read in ways:
        try:
            with in_time():
                read()
            ended[True] += 1
        except WeightsError as error:
            told.append(str(error))
            ended[False] += 1
    assert all(path.name in text and "\n" not in text and len(text) < 2000 for text in told), told
    return ended


# --- damage ---


@pytest.mark.filterwarnings("error::UserWarning")
def test_five_hundred_damaged_checkpoints_are_loaded_or_one_line(tmp_path: Path) -> None:
    ended: Counter[bool] = Counter()
    for seed in range(500):
        name = list(originals())[seed % 5]
        path = tmp_path / name
        path.write_bytes(damaged(originals()[name], seed, originals()["legacy.pth"]))
        ended += try_all(path)
    assert ended[False] > 1200
    assert ended[True] > 30  # a flipped weight of a file without checksums is another weight


@pytest.mark.parametrize("name", list(originals()))
def test_a_checkpoint_cut_anywhere_is_one_line(name: str, tmp_path: Path) -> None:
    path, whole = tmp_path / name, originals()[name]
    for length in {*range(0, 400, 13), *range(0, len(whole), len(whole) // 40)}:
        path.write_bytes(whole[:length])
        with (
            in_time(),
            pytest.raises(WeightsError, match=r"not a (PyTorch checkpoint|safetensors file), or damaged|an empty file"),
        ):
            read_checkpoint(path)


@settings(derandomize=True, max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300))
def test_any_pickle_is_gone_through_in_no_time(rest: bytes) -> None:
    with in_time():
        try:
            check_pickle(io.BytesIO(b"\x80\x02" + rest))
        except Exception as error:
            assert not isinstance(error, MemoryError | RecursionError)  # noqa: PT017 - anything else is damage


def test_what_is_sound_is_loaded(tmp_path: Path) -> None:
    for name, data in originals().items():
        (tmp_path / name).write_bytes(data)
        if name.endswith(".state"):
            state = read_checkpoint(tmp_path / name)
            assert state["schedulers"][0]["milestones"] == Counter([2, 3])
            assert state["words"]["a"][4] == ("x", b"bytes")
        else:
            assert load_weights(network(), tmp_path / name) == Loaded(44, 44)
            assert isinstance(PretrainedNet(str(tmp_path / name)), RainOerMeNet)


@pytest.mark.filterwarnings("error")
def test_nothing_but_the_one_line_is_said(tmp_path: Path) -> None:
    data = bytearray(originals()["legacy.pth"])
    data[1] = 61  # the version of pickle, of which PyTorch warns in a paragraph
    (tmp_path / "a.pth").write_bytes(data)
    read_checkpoint(tmp_path / "a.pth")


NO_FILES = ["folder", "pipe", "device", "loop", "missing", "~no-such-user/x", "x" * 5000, "zero\0byte"]


@pytest.mark.parametrize("suffix", [".pth", ".state", ".safetensors"])
@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_refused_and_not_waited_for(what: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "loop":
        path.symlink_to(path)
    elif what != "missing":
        path = Path(what + suffix)
    with in_time(), pytest.raises(WeightsError, match=r"no such checkpoint: "):
        read_checkpoint(path)


# --- intent ---


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def called(name: str, *arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def tensor(count: int, size: tuple[int, ...], stride: tuple[int, ...], data: str = "0") -> bytes:
    """A tensor on ``count`` floats of the record data/0."""

    def together(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, numbers)) + b"t"

    where = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(data) + text("cpu") + number(count) + b"tQ"
    hooks = called("collections.OrderedDict")
    return called("torch._utils._rebuild_tensor_v2", where, number(0), together(size), together(stride), b"\x89", hooks)


def archive(value: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    """A file as torch.save makes it, of a pickle made by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in {"data.pkl": b"\x80\x02" + value + b".", "version": b"3\n", "byteorder": b"little"}.items():
            file.writestr(f"archive/{name}", data)
        file.writestr("archive/data/0", bytes(64))
        for name, data in records.items():
            file.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def weights(value: bytes) -> bytes:
    return b"}" + text("params") + b"}" + text(WEIGHT) + value + b"ss"


def doubled(times: int, with_: bytes = b"\x86") -> bytes:
    """A tuple of a tuple twice, of a tuple twice, ..."""
    return b"K\x01\x85" + b"".join(b"q" + bytes([step]) + b"h" + bytes([step]) + with_ for step in range(times))


HARMFUL: dict[str, bytes] = {
    "a bytearray of a terabyte": called("builtins.bytearray", number(10**12)),
    "twenty bytearrays": b"]" + b"".join(called("__builtin__.bytearray", number(1 << 32)) + b"a" for _ in range(20)),
    "a tensor of a terabyte": weights(called("torch.FloatTensor", number(10**12))),
    "storages of a terabyte": weights(called("torch.storage.UntypedStorage", number(10**12))),
    "a copy of what is spread out": weights(
        called("torch._utils._rebuild_device_tensor_from_cpu_tensor", tensor(4, (10**10,), (0,)), b"NNN")
    ),
    "a key that takes years": b"}" + doubled(60) + b"K\x01s",
    "a key that takes years in a set": called("builtins.set", b"]" + doubled(60) + b"a"),
    "a key that takes years, wide": b"}" + b"K\x01" + b"".join(
        b"q" + bytes([step]) + b"(" + (b"h" + bytes([step])) * 200 + b"t" for step in range(6)
    ) + b"K\x01s",
    "a key too deep for the stack": b"}" + b"K\x01" + b"\x85" * 150_000 + b"K\x01s",
    "a text twice as long each time": b"c_codecs\nencode\n" * 60
    + text("x" * 200) + text("latin1") + b"\x86R" + (text("hex") + b"\x86R") * 59,
    "one list copied for ever": b"](" + b"K\x01" * 3000 + b"eq\x00("
    + (b"ccollections\nCounter\nh\x00\x85R") * 3000 + b"e",
    "code": called("os.system", text("true")),
    "code by another name": called("builtins.eval", text("1")),
    "an object": b"ctorch.nn.modules.linear\nLinear\n)\x81",
    "a module in torch": called("torch.hub.load", text("a/b"), text("c")),
    "a storage of a terabyte": weights(tensor(10**12, (4,), (1,))),
    "more than the storage": weights(tensor(4, (10**6,), (1,))),
    "a size below zero": weights(tensor(4, (-4,), (1,))),
    "no such record": weights(tensor(4, (4,), (1,), "../../etc/passwd")),
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_pickle_made_to_do_harm_is_refused(kind: str, tmp_path: Path) -> None:
    for name, data in [("a.pth", archive(HARMFUL[kind])), ("b.state", b"\x80\x02" + HARMFUL[kind] + b".")]:
        (tmp_path / name).write_bytes(data)
        assert try_all(tmp_path / name) == {False: 4}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a bytearray of a terabyte", r"refused \(calls builtins\.bytearray\)"),
        ("a tensor of a terabyte", r"refused \(calls torch\.FloatTensor\)"),
        ("a key that takes years", r"refused \(would take too much time or memory\)"),
        ("one list copied for ever", r"refused \(would take too much time or memory\)"),
        ("an object", r"refused \(makes objects of other kinds\)"),
        ("a storage of a terabyte", r"not a PyTorch checkpoint, or damaged$"),
    ],
)
def test_the_message_says_what_a_harmful_pickle_would_do(kind: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(archive(HARMFUL[kind]))
    with in_time(), pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "a.pth")


class RunsCode:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.sentinel}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_does_not_run_whatever_the_format(protocol: int, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    content = {"params": {"a": RunsCode(sentinel)}}
    data = pickle.dumps(content, protocol)
    hand_made = archive(b"N")
    files = {
        "plain.pth": data,
        "plain.state": data,
        "plain.safetensors": data,
        "record.pth": hand_made.replace(b"N.", b"N.") if protocol == 2 else saved(content),
        "legacy.pth": saved(content, legacy=True),
    }
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
        assert try_all(tmp_path / name)[False] >= 3
    assert not sentinel.exists()
    pickle.loads(data)
    assert sentinel.exists()  # it would have


def test_records_that_are_one_another_are_not_read_one_by_one(tmp_path: Path) -> None:
    """Many names for one record: a terabyte to check in a file of a megabyte."""
    data = bytearray(archive(b"N", extra=bytes(1 << 20)))
    end = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entry = data[data.rindex(b"PK\1\2") : end]
    count = 60_000
    directory = bytes(data[start:end]) + b"".join(
        bytes(entry[:-5]) + f"{step:05}".encode() for step in range(count - 5)
    )
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, count, count, len(directory))
    (tmp_path / "a.pth").write_bytes(bytes(data[:start]) + directory + tail)
    with in_time(), pytest.raises(WeightsError, match="or damaged"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("more", ["code/a.py", "constants.pkl", "nothing"])
def test_a_compressed_bomb_is_refused_unopened(more: str, tmp_path: Path) -> None:
    data = archive(bytes(1 << 26), zipfile.ZIP_DEFLATED, **{more: b"N."})
    assert len(data) < 1 << 18
    (tmp_path / "a.pth").write_bytes(data)
    with in_time(), pytest.raises(WeightsError, match=r"a compressed archive|a TorchScript archive"):
        read_checkpoint(tmp_path / "a.pth")


def safetensors_of(header: object, body: bytes = bytes(16), length: int | None = None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + body


def entry(shape: list[int], first: int, last: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        safetensors_of(b"{}", length=2**63),
        safetensors_of(b"{}", length=10**11),
        safetensors_of(b"{" + b" " * 1000, length=4),
        safetensors_of(b'{"a":' + b"[" * 100_000),
        safetensors_of({WEIGHT: entry([4], 0, 16), "b": entry([4], 0, 16)}),
        safetensors_of({WEIGHT: entry([400], 0, 1600)}),
        safetensors_of({WEIGHT: entry([2**40, 2**40], 0, 16)}),
        safetensors_of({WEIGHT: entry([4], 16, 0)}),
        safetensors_of({WEIGHT: entry([4], 0, 16, "F99")}),
        safetensors_of({WEIGHT: entry([16], 0, 16, "F8_E8M0")}),
        safetensors_of({WEIGHT: entry([32], 0, 16, "F4")}),
        safetensors_of({WEIGHT: entry([2], 0, 16, "C64")}),
        safetensors_of({WEIGHT: entry([0, 2**40], 0, 0)}, b""),
    ],
)
def test_a_safetensors_file_that_lies_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    assert try_all(tmp_path / "a.safetensors")[False] >= 3


# --- tensors of other kinds ---


def odd(kind: str, value: Tensor) -> Tensor:
    if kind == "quantised":
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)
    return {
        "complex": lambda: value.to(torch.complex64),
        "sparse": value.to_sparse,
        "meta": lambda: value.to("meta"),
        "spread": lambda: torch.zeros(1, 1, 1, 1).expand(value.shape),
        "huge": lambda: torch.zeros(1, 1, 1, 1).expand(10**6, 10**6, 3, 3),
        "whole": lambda: value.to(torch.int8),
        "truths": value.bool,
        "small": lambda: value.to(torch.float8_e4m3fn),
        "one number": lambda: torch.tensor(0.5),
        "empty": lambda: torch.zeros(0, 3, 3, 3),
        "nan": lambda: value * float("nan"),
    }[kind]()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("quantised", "inc.0.weight is strided, qint8; weights are strided, and plain numbers"),
        ("complex", "inc.0.weight is strided, complex64; weights are"),
        ("sparse", "inc.0.weight is sparse_coo, float32; weights are"),
        ("small", "inc.0.weight is strided, float8_e4m3fn; weights are"),
        ("meta", "inc.0.weight of shape (4, 3, 3, 3) has not the values for it; save the weights anew"),
        ("spread", "inc.0.weight of shape (4, 3, 3, 3) has not the values for it"),
        ("huge", "inc.0.weight of shape (1000000, 1000000, 3, 3) has not the values for it"),
        ("whole", "inc.0.weight holds whole numbers, not weights"),
        ("truths", "inc.0.weight holds whole numbers, not weights"),
        ("one number", "43 of 44 weights match; 1 of another shape: inc.0.weight () for (4, 3, 3, 3)"),
        ("empty", "43 of 44 weights match; 1 of another shape: inc.0.weight (0, 3, 3, 3) for (4, 3, 3, 3)"),
        ("nan", "inc.0.weight holds NaN or infinite values; the file is of no use"),
    ],
)
def test_a_tensor_of_another_kind_is_refused_by_name(kind: str, words: str, tmp_path: Path) -> None:
    path, own = tmp_path / "a.pth", network()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    path.write_bytes(saved({**before, WEIGHT: odd(kind, before[WEIGHT])}))
    with in_time(), pytest.raises(WeightsError) as caught:
        load_weights(own, path)
    assert words in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    with in_time(), pytest.raises(WeightsError):
        PretrainedNet(str(path))


def test_many_names_for_a_few_numbers_are_refused(tmp_path: Path) -> None:
    shared = torch.zeros(64, 64, 3, 3)
    path = tmp_path / "a.pth"
    path.write_bytes(saved({f"body.{number}.weight": shared for number in range(100)}))
    with pytest.raises(WeightsError, match=r"its 100 tensors are all views of a few numbers"):
        PretrainedNet(str(path))
    # Weights that a network uses in several places are.
    path.write_bytes(saved({f"body.{number}.weight": shared for number in range(20)}))
    assert len(find_state_dict(read_checkpoint(path), path)[0]) == 20


def cycle() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["params"] = inner
    return inner


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(1), 2: torch.zeros(1)},
        {("a", "b"): torch.zeros(1)},
        {None: torch.zeros(1)},
        {"params": {1: torch.zeros(1)}},
        cycle(),
        {"a." * 100_000 + "w": torch.zeros(1)},
        {"a\n\x1b[2J" * 50: torch.zeros(1)},
        {f"module.{'x' * 1000}.{number}": torch.zeros(1) for number in range(50)},
        [[[[]]]],
    ],
)
def test_names_of_other_kinds_are_one_line(content: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(saved(content))
    assert try_all(tmp_path / "a.pth")[False] == 3
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), tmp_path / "a.pth")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("channels", [0, 10**9])
def test_a_network_of_sizes_that_none_has_is_of_none(channels: int) -> None:
    state = {name: value.to("meta") for name, value in network().state_dict().items()}
    state[WEIGHT] = torch.empty(channels, 3, 3, 3, device="meta")
    with in_time():
        assert find_own(state) is None


def test_what_was_recognised_may_not_be_whole_numbers() -> None:
    state = {name: (value * 100).to(torch.int8) for name, value in network().state_dict().items()}
    with pytest.raises(WeightsError, match=r"inc\.0\.weight holds whole numbers, not weights of RainOerMeNet"):
        recognise(state)


def test_a_long_pickle_is_no_harm() -> None:
    long = {f"{number}.weight": [number, float(number), (number, str(number))] for number in range(20_000)}
    check_pickle(io.BytesIO(pickle.dumps(long, 2)))
    with pytest.raises(UnsafePickle, match="2,000,000 steps"):
        check_pickle(io.BytesIO(b"\x80\x02" + b"N" * 2_000_001 + b"."))
