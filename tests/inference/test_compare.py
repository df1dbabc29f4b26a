"""Before and after: the picture of both, and the page, in a browser that has no network and in one without scripts."""

from __future__ import annotations

import io
import re
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
from pages import PHONE, assert_an_injected_script_does_not_run, colours_at, decode, drag, until
from PIL import Image, JpegImagePlugin

from rainoerme_plugin.data.images import RGB
from rainoerme_plugin.inference.compare import Pair, side_by_side, write_page

RED, BLUE, BLACK = (200, 30, 30), (30, 30, 200), (0, 0, 0)
COLOURS = {"rainy": RED, "derained": BLUE, "black": BLACK}
EVIL = [
    "a/<img src=x onerror=window.pwned=1>.png",
    '"onload="window.pwned=1" src="x.png',
    "</noscript></script><script>window.pwned=1</script>.png",
    "{{ 7 * 7 }} & &lt; 'quoted'.png",
]
NO_UNICODE = b"caf\xe9\n.png".decode("utf-8", "surrogateescape")
WIDTH, HEIGHT = 300, 200


def picture(colour: tuple[int, int, int], width: int = WIDTH, height: int = HEIGHT) -> RGB:
    """A colour above, black below."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = colour
    return image


def pair(name: str, width: int = WIDTH, height: int = HEIGHT) -> Pair:
    return Pair(name, picture(RED, width, height), picture(BLUE, width, height))


def some_pairs() -> list[Pair]:
    return [pair("first.png"), pair("tall.png", 200, 400), pair("large.png", 3000, 1500), *map(pair, EVIL)]


# Both in one picture


@pytest.mark.parametrize(
    ("height", "width", "gap", "beside"),
    [(6, 4, 4, True), (9, 16, 4, True), (9, 17, 4, False), (900, 2000, 10, False), (2000, 1500, 10, True)],
)
def test_both_are_in_one_picture_as_large_as_they_were(height: int, width: int, gap: int, beside: bool) -> None:
    chance = np.random.default_rng(0)
    rainy, derained = chance.integers(0, 250, (2, height, width, 3), np.uint8)
    both = side_by_side(rainy, derained)
    assert both.dtype == np.uint8
    assert both.flags.c_contiguous
    if not beside:
        both, rainy, derained = (image.transpose(1, 0, 2) for image in (both, rainy, derained))
        height, width = width, height
    assert both.shape == (height, 2 * width + gap, 3)
    np.testing.assert_array_equal(both[:, :width], rainy)
    assert (both[:, width : width + gap] == 255).all()
    np.testing.assert_array_equal(both[:, width + gap :], derained)


def test_pictures_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"differ in shape: \(6, 4, 3\), \(4, 6, 3\)"):
        side_by_side(picture(RED, 4, 6), picture(BLUE, 6, 4))
    wrong = Pair("b.png", picture(RED, 4, 6), picture(BLUE, 6, 4))
    with pytest.raises(ValueError, match=r"of 'b.png' differ in shape"):
        write_page(tmp_path / "page.html", [pair("a.png"), wrong])
    assert not list(tmp_path.iterdir())


# The file


class Parsed(HTMLParser):
    """What a parser that knows no scripts sees: pictures and texts of each photograph, and all elements."""

    VOID = ("meta", "link", "img")

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.photographs: list[dict[str, Any]] = []
        self.captions: list[str] = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "li":
            self.photographs.append({"size": (dict(attrs).get("data-width"), dict(attrs).get("data-height"))})
            self.photographs[-1] |= {"thumbnail": [], "pictures": [], "alts": [], "caption": ""}
        if tag == "img":
            kind = "pictures" if "noscript" in self.open else "thumbnail"
            self.photographs[-1][kind].append(dict(attrs)["src"])
            self.photographs[-1]["alts"] += [dict(attrs)["alt"]] if kind == "pictures" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "figcaption" in self.open:
            self.photographs[-1]["caption"] += data


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "new" / "page.html"
    assert write_page(path, iter(some_pairs()), title="a & <b>") == len(some_pairs())
    return path


@pytest.fixture(scope="module")
def parsed(file: Path) -> Parsed:
    return Parsed(file)


def test_pictures_are_jpegs_of_the_photographs(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:90, :140]
    waves = [128 + 90 * np.sin(rows / 9 + shift) * np.cos(columns / 13) for shift in range(6)]
    rainy, derained = np.stack(waves, 2).round().astype(np.uint8).reshape(90, 140, 2, 3).transpose(2, 0, 1, 3)
    write_page(tmp_path / "page.html", [Pair("waves.png", rainy, derained)])
    (found,) = Parsed(tmp_path / "page.html").photographs
    assert len(found["pictures"]) == 2
    for uri, image in zip(found["pictures"], (rainy, derained), strict=True):
        decoded = decode(uri)
        assert JpegImagePlugin.get_sampling(decoded) == 0  # 4:4:4
        np.testing.assert_allclose(np.asarray(decoded, int), image, atol=12)
        assert np.abs(np.asarray(decoded, int) - image).mean() < 2
    half = np.asarray(decode(found["thumbnail"][0]), int)
    np.testing.assert_allclose(half[:, :68], rainy[:, :68], atol=25)
    np.testing.assert_allclose(half[:, 72:], derained[:, 72:], atol=25)


def test_large_photographs_are_shrunk(parsed: Parsed, tmp_path: Path) -> None:
    first, tall, large = parsed.photographs[:3]
    assert [first["size"], tall["size"], large["size"]] == [("300", "200"), ("200", "400"), ("1280", "640")]
    for found, size, small in ((tall, (200, 400), (120, 240)), (large, (1280, 640), (240, 120))):
        for uri, colour in zip(found["pictures"], (RED, BLUE), strict=True):
            assert decode(uri).size == size
            image = np.asarray(decode(uri), int)
            assert np.abs(image[: size[1] // 2 - 8] - colour).max() <= 6
            assert image[size[1] // 2 + 8 :].max() <= 6
        (thumbnail,) = (decode(uri) for uri in found["thumbnail"])
        assert thumbnail.size == small
        np.testing.assert_allclose(np.asarray(thumbnail, int)[10, [10, -10]], (RED, BLUE), atol=6)
    assert " ".join(first["caption"].split()) == "first.png 300×200"
    assert " ".join(large["caption"].split()) == "large.png 3000×1500, shown at 1280×640"
    assert first["alts"] == ["first.png, rainy", "first.png, derained"]
    write_page(tmp_path / "a.html", [pair("a.png")], max_side=30, quality=88)
    write_page(tmp_path / "b.html", [pair("a.png")], max_side=30, quality=20)
    fine, coarse = (decode(Parsed(tmp_path / name).photographs[0]["pictures"][0]) for name in ("a.html", "b.html"))
    assert fine.size == coarse.size == (30, 20)
    assert sum(coarse.quantization[0]) > 2 * sum(fine.quantization[0])


def test_nothing_is_fetched(parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        for name in {"src", "href", "srcset", "data", "poster", "action"} & set(attributes):
            assert str(attributes[name]).startswith("data:"), tag
    assert not re.findall(r"https?:|@import|url\(", parsed.source)
    (policy,) = [attributes["content"] for _, attributes in parsed.elements if "http-equiv" in attributes]
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")


def test_hostile_names_stay_texts(parsed: Parsed) -> None:
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    names = [found["caption"] for found in parsed.photographs[3:]]
    assert [name for name, caption in zip(EVIL, names, strict=True) if name not in caption] == []
    # To a browser that runs scripts what stands between these is one text: nothing in it may end it.
    for text in re.findall(r"<noscript>(<img.*?)</noscript>", parsed.source, re.DOTALL):
        assert len(re.findall(r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]+"', text)) == text.count('src="') == 2


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    assert write_page(tmp_path / "page.html", [pair(NO_UNICODE)]) == 1
    (found,) = Parsed(tmp_path / "page.html").photographs
    assert found["caption"].split() == ["caf?", ".png", "300×200"]


def test_no_photographs_make_a_page_that_says_so(tmp_path: Path) -> None:
    assert write_page(tmp_path / "page.html", []) == 0
    assert "There are no photographs." in Parsed(tmp_path / "page.html").source


def test_photographs_are_taken_one_by_one_and_written_as_they_come(tmp_path: Path) -> None:
    alive: list[weakref.ref[RGB]] = []
    written: list[int] = []

    def one_by_one() -> Iterator[Pair]:
        for number in range(5):
            made = pair(f"{number}.png", 640, 480)
            alive.append(weakref.ref(made.rainy))
            yield made
            del made
            assert sum(one() is not None for one in alive) <= 2
            written.append(next(tmp_path.glob(".rainoerme-*")).stat().st_size)

    assert write_page(tmp_path / "page.html", one_by_one()) == 5
    assert written[0] > 0
    assert all(np.diff(written) > 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error", "photograph.png"), ValueError("x"), KeyboardInterrupt()]
)
def test_a_page_that_was_not_finished_is_not_there(tmp_path: Path, error: BaseException) -> None:
    def broken() -> Iterator[Pair]:
        yield pair("a.png")
        raise error

    (tmp_path / "page.html").write_text("old")
    with pytest.raises(type(error)) as caught:
        write_page(tmp_path / "page.html", broken())
    assert (tmp_path / "page.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    if isinstance(caught.value, OSError):
        assert caught.value.filename == "photograph.png"  # not the page


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        write_page(tmp_path / "file" / "page.html", [pair("a.png")])
    assert caught.value.filename == str(tmp_path / "file" / "page.html")


def test_the_same_photographs_make_the_same_file(file: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", some_pairs(), title="a & <b>")
    assert (tmp_path / "page.html").read_bytes() == file.read_bytes()


# In a browser


def visit(browser: Any, file: Path, **options: Any) -> AbstractContextManager[Any]:
    return pages.visit(browser, file, "#derained img", **{"viewport": {"width": 1280, "height": 800}, **options})


@pytest.fixture
def tab(browser: Any, file: Path) -> Iterator[Any]:
    with visit(browser, file) as opened:
        yield opened


@pytest.fixture
def phone(browser: Any, file: Path) -> Iterator[Any]:
    with visit(browser, file, **PHONE) as opened:
        yield opened


def shows(tab: Any, name: str) -> bool:
    until(lambda: tab.locator("#name").text_content() == name)
    return True


def colours(tab: Any, *spots: tuple[float, float]) -> list[str]:
    return colours_at(tab, COLOURS, ".tag", *spots)


def at(tab: Any) -> int:
    return int(tab.get_by_role("slider").get_attribute("aria-valuenow"))


def test_it_opens_without_a_network_and_in_silence(tab: Any) -> None:
    assert tab.title() == tab.locator("h1").inner_text() == "a & <b>"
    assert "Rainy" not in tab.locator("header").inner_text()  # that is for those without scripts
    assert tab.locator("img:visible").evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")
    assert tab.locator("#photographs img:visible").count() == len(some_pairs())
    assert tab.locator("#place").inner_text() == f"1 of {len(some_pairs())}"
    assert tab.locator(".caption").inner_text().startswith("first.png 300×200")
    assert tab.locator(".stage img").evaluate_all("all => all.map(one => one.alt)") == [
        "first.png, derained",
        "first.png, rainy",
    ]
    assert colours(tab, (0.2, 0.2), (0.8, 0.2), (0.2, 0.8)) == ["rainy", "derained", "black"]


def test_an_injected_script_would_not_run(tab: Any) -> None:
    """That no name becomes markup is tested above; should one, the page's policy still forbids what it says."""
    assert_an_injected_script_does_not_run(tab)


def test_hostile_names_do_nothing(tab: Any) -> None:
    for number, name in enumerate(EVIL, start=3):
        tab.locator("#photographs button").nth(number).click()
        assert shows(tab, name)
        assert tab.locator("#rainy img").get_attribute("alt") == f"{name}, rainy"
        assert colours(tab, (0.2, 0.2), (0.8, 0.2)) == ["rainy", "derained"]


def test_the_divider_follows_the_mouse(tab: Any) -> None:
    drag(tab, (0.8, 0.3), (0.253, 0.6))  # from anywhere
    assert at(tab) == 25
    assert tab.get_by_role("slider").get_attribute("aria-valuetext") == "25 % rainy"
    clip = tab.locator("#upper").evaluate("one => getComputedStyle(one).clipPath")
    assert float(re.findall(r"([\d.]+)%", clip)[0]) == pytest.approx(74.7, abs=0.3)
    stage, line = (tab.locator(id).bounding_box() for id in ("#stage", "#line"))
    assert line["x"] + line["width"] / 2 == pytest.approx(stage["x"] + 0.253 * stage["width"], abs=2)
    assert colours(tab, (0.15, 0.2), (0.35, 0.2), (0.8, 0.2)) == ["rainy", "derained", "derained"]
    drag(tab, (0.3, 0.3), (1.4, 0.3))  # out of the stage: to its edge
    assert at(tab) == 100
    assert colours(tab, (0.1, 0.2), (0.9, 0.2)) == ["rainy", "rainy"]


def test_the_divider_follows_a_finger(phone: Any) -> None:
    session = phone.context.new_cdp_session(phone)
    box = phone.locator("#stage").bounding_box()
    for kind, x in (("Start", 0.6), ("Move", 0.5), ("Move", 0.4), ("Move", 0.3), ("End", None)):
        spot = None if x is None else {"x": box["x"] + x * box["width"], "y": box["y"] + 0.5 * box["height"]}
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": [spot] if spot else []})
    assert at(phone) == 30
    assert colours(phone, (0.15, 0.2), (0.45, 0.2)) == ["rainy", "derained"]


def test_keys_move_the_divider_and_change_the_photograph(tab: Any) -> None:
    for keys, expected in ((["ArrowLeft"] * 5, 40), (["ArrowRight"], 42), (["End"], 100), (["Home"], 0)):
        for key in keys:
            tab.keyboard.press(key)
        assert at(tab) == expected
    assert colours(tab, (0.1, 0.2), (0.9, 0.2)) == ["derained", "derained"]
    for key, name in (("n", "tall.png"), ("ArrowDown", "large.png"), ("p", "tall.png"), ("ArrowUp", "first.png")):
        tab.keyboard.press(key)
        assert shows(tab, name)
    tab.keyboard.press("ArrowUp")  # round
    assert shows(tab, EVIL[-1])
    assert tab.locator("#photographs button").last.get_attribute("aria-current") == "true"
    assert tab.locator("[aria-current=true]").count() == 1
    for key in "nnnn":  # faster than pictures are decoded
        tab.keyboard.press(key)
    assert shows(tab, EVIL[0])
    assert at(tab) == 0


def test_the_photograph_changes_by_buttons(tab: Any) -> None:
    tab.get_by_role("button", name="Next photograph").click()
    assert shows(tab, "tall.png")
    tab.get_by_role("button", name="Previous photograph").click()
    assert shows(tab, "first.png")
    tab.locator("#photographs button").nth(2).click()
    assert shows(tab, "large.png")
    assert tab.locator(".caption").inner_text().startswith("large.png 3000×1500, shown at 1280×640")
    assert tab.evaluate("document.activeElement.id") == "line"
    # Whoever goes through the list by keyboard stays in it.
    tab.locator("#photographs button").nth(1).press("Enter")
    assert shows(tab, "tall.png")
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate("document.activeElement.textContent") == "first.png"


def test_the_rainy_one_shows_while_the_space_bar_or_the_button_is_held(tab: Any) -> None:
    tab.get_by_role("button", name="Next photograph").click()
    assert shows(tab, "tall.png")
    button = tab.get_by_role("button", name="Hold for rainy")
    spot = button.bounding_box()
    for press, release in (
        (lambda: tab.keyboard.down("Space"), lambda: tab.keyboard.up("Space")),
        (lambda: (tab.mouse.move(spot["x"] + 9, spot["y"] + 9), tab.mouse.down()), tab.mouse.up),
        (lambda: (button.focus(), tab.keyboard.down("Space")), lambda: tab.keyboard.up("Space")),
    ):
        press()
        assert colours(tab, (0.2, 0.2), (0.8, 0.2)) == ["rainy", "rainy"]
        assert button.get_attribute("aria-pressed") == "true"
        release()
        assert colours(tab, (0.2, 0.2), (0.8, 0.2)) == ["rainy", "derained"]
        assert button.get_attribute("aria-pressed") == "false"
    assert tab.locator("#name").text_content() == "tall.png"


def boxes(tab: Any) -> list[dict[str, float]]:
    return [tab.locator(f"#{side} img").bounding_box() for side in ("rainy", "derained")]


def test_zooming_keeps_the_pictures_aligned(tab: Any) -> None:
    tab.locator("#photographs button").nth(2).click()
    assert shows(tab, "large.png")
    room, stage = (tab.locator(id).bounding_box() for id in ("#room", "#stage"))
    assert boxes(tab) == [stage, stage]  # all of it
    assert stage["width"] == pytest.approx(room["width"], abs=1)
    assert stage["width"] / stage["height"] == pytest.approx(2, rel=0.01)
    assert not tab.locator("#moves").is_visible()
    tab.get_by_role("button", name="100 %").click()
    first, second = boxes(tab)
    assert first == second
    assert (first["width"], first["height"]) == (1280, 640)
    assert tab.get_by_role("button", name="100 %").get_attribute("aria-pressed") == "true"
    tab.keyboard.press("2")
    first, second = boxes(tab)
    assert first == second
    assert (first["width"], first["height"]) == (2560, 1280)
    assert first["x"] + 1280 == pytest.approx(room["x"] + room["width"] / 2, abs=1)  # the middle stays there
    # Away from the divider a larger picture is moved, near it the divider.
    drag(tab, (0.2, 0.4), (0.3, 0.5))
    moved, second = boxes(tab)
    assert moved == second
    assert moved["x"] - first["x"] == pytest.approx(0.1 * room["width"], abs=2)
    assert moved["y"] - first["y"] == pytest.approx(0.1 * room["height"], abs=2)
    assert at(tab) == 50
    drag(tab, (0.502, 0.3), (0.3, 0.3))
    assert at(tab) == 30
    assert boxes(tab)[0] == moved
    tab.keyboard.press("Shift+ArrowRight")
    assert boxes(tab)[0]["x"] == pytest.approx(moved["x"] - 60, abs=0.1)
    tab.mouse.wheel(30, 0)
    until(lambda: boxes(tab)[0]["x"] < moved["x"] - 80)
    drag(tab, (0.9, 0.1), (0.1, 0.9))  # never beyond the picture's edge
    drag(tab, (0.4, 0.1), (0.9, 0.9))
    drag(tab, (0.4, 0.1), (0.99, 0.9))
    drag(tab, (0.4, 0.1), (0.99, 0.9))
    corner = boxes(tab)[0]
    assert (corner["x"], corner["y"]) == pytest.approx((room["x"], room["y"]), abs=1)
    tab.keyboard.press("0")
    assert boxes(tab) == [stage, stage]


def test_a_double_click_goes_near_and_back(tab: Any) -> None:
    stage = tab.locator("#stage").bounding_box()
    tab.locator("#photographs button").nth(2).click()
    assert shows(tab, "large.png")
    stage = tab.locator("#stage").bounding_box()
    tab.mouse.dblclick(stage["x"] + 0.25 * stage["width"], stage["y"] + 0.5 * stage["height"])
    assert boxes(tab)[0]["width"] == 1280
    tab.mouse.dblclick(stage["x"] + 0.25 * stage["width"], stage["y"] + 0.5 * stage["height"])
    assert boxes(tab)[0] == stage


CONTROLS = """() => [...document.querySelectorAll("button, [tabindex]")].filter(one => one.offsetParent !== null)"""


def test_every_control_is_reached_by_tab_and_shows_its_focus(tab: Any) -> None:
    tab.evaluate(f"({CONTROLS})().forEach((one, number) => one.dataset.number = number)")
    count = tab.evaluate(f"({CONTROLS})().length")
    assert count == 2 + 3 + 1 + 1 + len(some_pairs())
    for number in range(count):
        tab.keyboard.press("Tab")
        found, outline = tab.evaluate(
            """(one => [one.dataset.number, getComputedStyle(one, one.id === "line" ? "::after" : null).outlineStyle])
            (document.activeElement)"""
        )
        assert (int(found), outline) == (number, "solid")
    assert tab.evaluate(f"({CONTROLS})().filter(one => !(one.textContent.trim() || one.ariaLabel)).length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(320, 568), (390, 844), (844, 390), (1280, 800), (2560, 1300)])
def test_all_fits_on_the_screen(browser: Any, file: Path, size: tuple[int, int], scheme: str) -> None:
    options = {**PHONE, "viewport": {"width": size[0], "height": size[1]}, "color_scheme": scheme}
    with visit(browser, file, **options) as tab:
        for name in ("first.png", "tall.png", "large.png"):
            assert shows(tab, name)
            wide, high = tab.evaluate("(one => [one.scrollWidth, one.scrollHeight])(document.documentElement)")
            assert (wide, high) == size
            stage = tab.locator("#stage").bounding_box()
            assert stage["x"] >= 0
            assert stage["x"] + stage["width"] <= size[0] + 0.1
            assert stage["height"] >= 100
            tab.keyboard.press("n")
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}[scheme]


@pytest.mark.parametrize("width", [390, 1280])
def test_without_scripts_the_pictures_stand_beside_each_other(browser: Any, file: Path, width: int) -> None:
    options = {"java_script_enabled": False, "viewport": {"width": width, "height": 800}}
    with visit(browser, file, **options) as tab:
        figures = tab.locator("figure:visible")
        assert figures.count() == len(some_pairs())
        assert tab.locator("button:visible").count() == 0
        image = np.asarray(Image.open(io.BytesIO(figures.first.screenshot())).convert("RGB"), int)
        pixels = image[20, [image.shape[1] // 4, 3 * image.shape[1] // 4]]
        np.testing.assert_allclose(pixels, (RED, BLUE), atol=6)
        assert "first.png 300×200" in figures.first.inner_text()
        assert tab.locator("header").inner_text().split("\n")[-1] == "Rainy on the left, derained on the right."
        for box in (figures.nth(number).bounding_box() for number in range(3)):
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_no_photographs_in_a_browser(browser: Any, tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", [])
    with browser.new_page() as tab:
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        assert tab.get_by_text("There are no photographs.").is_visible()
        assert not tab.locator("#viewer").is_visible()
        assert errors == []


def test_many_photographs_open_fast(browser: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 240, 320, 3), np.uint8)
    assert write_page(tmp_path / "page.html", (Pair(f"{number}.png", *noise) for number in range(150))) == 150
    assert (tmp_path / "page.html").stat().st_size > 30e6
    began = time.monotonic()
    with visit(browser, tmp_path / "page.html") as tab:
        assert time.monotonic() - began < 10
        assert tab.evaluate("document.images.length") == 150 + 2  # the large ones are texts still
        tab.keyboard.press("ArrowUp")
        assert shows(tab, "149.png")
        assert tab.locator("#photographs button").last.evaluate("one => one.getBoundingClientRect().bottom") <= 801
