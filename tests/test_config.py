"""Option files: inheritance, overrides, environment variables, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import OPTIONS

from rainoerme_plugin.config import read_options
from rainoerme_plugin.errors import OptionError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_is_merged_over_its_bases_and_overrides_over_all(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one.yml", "x: 1\nd: {p: 1, q: 2, r: 3}\nlist: [1, 2]\n")
    write(tmp_path / "two.yml", "_base_: a/one.yml\nd: {q: 20}\ngone: {a: 1, b: 2}\n")
    top = write(tmp_path / "top.yml", "_base_: [two.yml]\nlist: [3]\ngone: {_delete_: true, c: 3}\n")
    assert read_options(top, ["d.r=30", "new.key=1e-3", "text=abc", "flag=true", "none=~", "several=[1, 2]"]) == {
        "x": 1,
        "d": {"p": 1, "q": 20, "r": 30},
        "list": [3],
        "gone": {"c": 3},
        "new": {"key": 0.001},
        "text": "abc",
        "flag": True,
        "none": None,
        "several": [1, 2],
    }


def test_environment_variables_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "/data")
    file = write(tmp_path / "o.yml", "a: ${SOMEWHERE}/x\nb: [{c: '${SOMEWHERE}'}]\n")
    assert read_options(file) == {"a": "/data/x", "b": [{"c": "/data"}]}
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(OptionError, match=r"o\.yml: a: the environment variable SOMEWHERE is not set"):
        read_options(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"not valid YAML: line \d+, column \d+"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ("- 1", "expected keys and values, got list"),
        ("", "expected keys and values, got NoneType"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("_base_: nowhere.yml", r"no such option file: .*nowhere\.yml \(the _base_ of .*o\.yml\)"),
        ("_base_: o.yml", "is its own _base_"),
        ("_base_: 3", None),
        ("_base_: base.py", r"ends in \.yml"),
    ],
)
def test_what_is_no_option_file_is_refused_by_name(tmp_path: Path, text: str, message: str | None) -> None:
    file = write(tmp_path / "o.yml", text)
    with pytest.raises(OptionError, match=message) as caught:
        read_options(file)
    assert "o.yml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no such option file: .*absent\.yml"):
        read_options(tmp_path / "absent.yml")


@pytest.mark.parametrize("override", ["train.total_iter", "=3", "a b=3", "x=[1"])
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    file = write(tmp_path / "o.yml", "a: 1")
    with pytest.raises(OptionError, match="override"):
        read_options(file, [override])


def test_code_in_a_base_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    write(
        tmp_path / "base.yml",
        f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{victim}]]",
    )
    with pytest.raises(OptionError):
        read_options(write(tmp_path / "o.yml", "_base_: base.yml"))
    assert not victim.exists()


@pytest.mark.parametrize("file", sorted(OPTIONS.glob("*.yml")), ids=lambda path: path.name)
def test_files_inherit_as_mmengine_reads_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.config import Config

    for name in ("RAINOERME_DATA", "RAINOERME_WEIGHTS"):
        monkeypatch.setenv(name, f"${{{name}}}")  # which mmengine leaves
    expected = Config.fromfile(str(file), use_predefined_variables=False, import_custom_modules=False).to_dict()
    assert read_options(file) == expected


def test_deleting_merging_and_several_bases_are_mmengines(tmp_path: Path) -> None:
    from mmengine.config import Config

    (tmp_path / "a.yml").write_text("a: {x: 1, y: {z: 2, w: [1, 2]}}\nb: [1, {c: 2}]\n")
    (tmp_path / "b.yml").write_text("d: {e: null, f: 1.5e-3}\ng: text\n")
    file = tmp_path / "c.yml"
    file.write_text(
        "_base_: [a.yml, b.yml]\n"
        "a: {y: {_delete_: true, v: 3}, x: {n: 1, _delete_: true}}\n"
        "b: [3]\nd: {f: ~}\nh: {i: {j: on}}\n"
    )
    expected = Config.fromfile(str(file), use_predefined_variables=False, import_custom_modules=False).to_dict()
    assert read_options(file) == expected
