"""The tables: every figure where it belongs, the best one bold, nothing that breaks Markdown or CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from rainoerme_plugin.benchmark.results import Results
from rainoerme_plugin.benchmark.tables import to_csv, to_markdown, to_text


def measure(name: str, title: str, digits: int, protocol: str | None = None, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "better": "higher",
        "digits": digits,
        "about": "",
        "needs_clean": protocol is not None,
        "protocol": protocol,
        "ranks": True,
        **others,
    }


def figure(mean: Any, **others: Any) -> dict[str, Any]:
    return {"mean": mean, "std": None, "low": None, "high": None, "images": 2, "difference": None, **others}


def row(method: str, figures: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "method": method,
        "dataset": "rain",
        "trained_on": None,
        "images": 2,
        "failed": 0,
        "figures": figures,
        "published": None,
        "values": {},
        "outputs": [],
        "failures": {},
        **others,
    }


def method(name: str, costs: list[Any] | None = None, **others: Any) -> dict[str, Any]:
    return {"name": name, "type": "file", "rounding": "round", "parameters": None, "costs": costs or [], **others}


TIMING = {"median": 0.5, "low": 0.4, "high": 0.625, "repeats": 7, "images_per_second": 4.0, "peak_memory": 3 * 2**20}
COST = {"height": 321, "width": 481, "batch": 2, "flops": 8.5e9, "uncounted": [], "timing": TIMING, "error": None}


def scenes(count: int) -> list[dict[str, Any]]:
    return [{"scene": number} for number in range(count)]


@pytest.fixture
def results() -> Results:
    difference = {"mean": 5.5, "low": 5.25, "high": 5.75, "wins": 0.5, "images": 2}
    found: Any = {
        "name": "some|thing",
        "environment": {"torch": "2.0", "device_name": "a processor", "threads": 2, "precision": "float32"},
        "baseline": "input",
        "measures": [
            measure("psnr_matlab_y", "PSNR matlab_y", 2, "matlab_y"),
            measure("ssim_matlab_y", "SSIM matlab_y", 4, "matlab_y"),
            measure("psnr_rgb", "PSNR rgb", 2, "rgb"),
            measure("ssim_rgb", "SSIM rgb", 4, "rgb"),
            measure("niqe", "NIQE", 3, better="lower"),
            measure("structure_kept", "structure kept", 3, ranks=False),
        ],
        "datasets": [
            {"name": "rain", "paired": True, "known_as": "Rain100L", "images": scenes(20)},
            {"name": "real", "paired": False, "known_as": None, "images": scenes(1)},
        ],
        "methods": [
            method("input"),
            method("net", [COST, {**COST, "timing": None, "error": "out of memory"}], parameters=55046),
        ],
        "rows": [
            row(
                "input",
                {
                    "psnr_matlab_y": figure(26.9),
                    "ssim_matlab_y": figure(0.83842),
                    "niqe": figure(3.0),
                    "structure_kept": figure(1.0),
                },
            ),
            row(
                "net",
                {
                    "psnr_matlab_y": figure(32.4, std=2.0, low=31.0, high=33.5, difference=difference),
                    "ssim_matlab_y": figure("inf"),
                    "psnr_rgb": figure(30.123),
                    "ssim_rgb": figure(0.9),
                    "niqe": figure(4.0),
                    "structure_kept": figure(0.9),
                },
                trained_on="pairs | <b>others</b>",
                published={"protocol": "matlab_y", "psnr": 32.5, "ssim": None, "images": 2},
                failed=1,
            ),
            row("net", {"niqe": figure(2.5)}, dataset="real"),
        ],
        "warnings": [{"kind": "count", "text": "too | few", "datasets": [], "methods": []}],
    }
    return found


def cells(markdown: str, start: str) -> list[list[str]]:
    """The tables' rows whose first cell is ``start``."""
    lines = [line.strip("|").split(" | ") for line in markdown.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line] for line in lines]


def test_markdown_has_means_with_the_best_bold(results: Results) -> None:
    text = to_markdown(results)
    header = (
        "| method | trained on | images | PSNR / SSIM matlab_y | PSNR / SSIM rgb | NIQE | structure kept | published |"
    )
    assert header in text.splitlines()
    assert cells(text, "input")[0] == [
        "input",
        "-",
        "2",
        "26.90 / 0.8384",
        "- / -",
        "**3.000**",
        "1.000",
        "-",
    ]
    assert cells(text, "net")[0] == [
        "net",
        "pairs \\| &lt;b>others&lt;/b>",
        "2 (**1 failed**)",
        "**32.40** / **inf**",
        "**30.12** / **0.9000**",
        "4.000",
        "0.900",
        "32.50 / - matlab_y",
    ]


def test_a_mean_over_fewer_images_is_never_bold(results: Results) -> None:
    results["rows"][1]["images"] = 1
    assert cells(to_markdown(results), "input")[0][3] == "**26.90** / **0.8384**"
    assert cells(to_markdown(results), "net")[0][3] == "32.40 / inf"


def test_markdown_has_intervals_and_differences_of_the_first_protocol(results: Results) -> None:
    text = to_markdown(results)
    spread, difference = cells(text, "net")[1:3]
    assert spread == ["net", "32.40 ± 2.00 [31.00, 33.50]", "inf", "4.000", "0.900"]
    assert difference == ["net", "+5.50 [+5.25, +5.75], 50%", "-", "-", "-"]
    assert len(cells(text, "input")) == 2  # none of the baseline from itself


def test_a_data_set_of_few_scenes_says_that_it_has_no_intervals(results: Results) -> None:
    first, second = to_markdown(results).split("## real")
    assert "over images [95 % bootstrap interval of the mean, over scenes]:" in first
    assert "image by image [95 % interval], and" in first
    assert "over images; no intervals, which need 20 scenes (here 1):" in second
    assert "95 %" not in second
    results["datasets"][0]["images"].pop()
    text = to_markdown(results)
    assert "no intervals, which need 20 scenes (here 19)" in text
    assert "image by image, and share" in text
    assert "95 %" not in text


def test_published_figures_of_other_images_say_of_how_many(results: Results) -> None:
    published: Any = results["rows"][1]["published"]
    published["images"] = 1000
    assert cells(to_markdown(results), "net")[0][-1] == "32.50 / - matlab_y, on all 1,000"


def test_markdown_has_costs_and_warnings_and_every_data_set(results: Results) -> None:
    text = to_markdown(results)
    first, second = cells(text, "net")[-2:]
    assert first == ["net", "55,046", "481x321", "2", "8.50 G", "0.5 [0.4, 0.625]", "4", "3 MiB"]
    assert second[5] == "out of memory"
    assert "On a processor, 2 threads, float32. FLOPs are of one image" in text
    assert "- too \\| few" in text
    assert "## rain: 20 pairs, Rain100L" in text
    assert "## real: 1 image without ground truth" in text
    assert "# some\\|thing" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_csv_has_a_line_a_row_with_every_part_of_a_figure(results: Results) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert [(line["dataset"], line["method"]) for line in lines] == [
        ("rain", "input"),
        ("rain", "net"),
        ("real", "net"),
    ]
    line = lines[1]
    assert {key: line[key] for key in line if key.startswith("psnr_matlab_y")} == {
        "psnr_matlab_y": "32.4",
        "psnr_matlab_y_std": "2.0",
        "psnr_matlab_y_low": "31.0",
        "psnr_matlab_y_high": "33.5",
        "psnr_matlab_y_images": "2",
        "psnr_matlab_y_difference": "5.5",
        "psnr_matlab_y_difference_low": "5.25",
        "psnr_matlab_y_difference_high": "5.75",
    }
    assert (line["ssim_matlab_y"], line["failed"], line["trained_on"]) == ("inf", "1", "pairs | <b>others</b>")
    assert (line["seconds"], line["seconds_low"], line["flops"], line["height"]) == (
        "0.5",
        "0.4",
        "8500000000.0",
        "321",
    )
    assert lines[0]["seconds"] == lines[2]["psnr_rgb"] == ""


def test_the_terminals_table_is_short(results: Results) -> None:
    lines = [" ".join(line.split()) for line in to_text(results).splitlines()]
    assert lines[0] == "data set method images PSNR matlab_y SSIM matlab_y NIQE structure kept s/image"
    assert lines[2] == "rain net 2 (1 failed) 32.40 inf 4.000 0.900 0.25"
    assert lines[3] == "real net 2 - - 2.500 - 0.25"
    assert lines[-1] == "Warning: too | few"
