"""The report in a real browser: headless Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bottleneck import TransferClassifier, write_report
from tests.conftest import make_tiny_backbone
from tests.report.html import Report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
CLASSES = ["ant <i>", "bee", "wasp"]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or driver.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("no Chromium is installed")
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """Return a report on 90 images of three classes, some of them mistaken, two of them copies."""
    folder = tmp_path_factory.mktemp("browser")
    rng = np.random.RandomState(0)
    labels = np.arange(180) % 3
    images = np.clip(60 + 60 * labels[:, None, None, None] + rng.randint(-60, 60, (180, 24, 24, 3)), 0, 255)
    images = np.clip(images + rng.randint(-35, 35, (180, 1, 1, 1)), 0, 255).astype(np.uint8)
    images[91] = images[90]
    paths = [folder / f"photo-{i:03d}.png" for i in range(180)]
    for file, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(file)
    names = np.array(CLASSES)[labels]
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3, random_state=0)
    probe.fit(paths[:90], names[:90])
    return write_report(probe, paths[90:], names[90:], path=folder / "report.html")


@pytest.fixture(scope="module")
def report(path: Path) -> Report:
    return Report(path.read_text(encoding="utf-8"))


class Opened:
    """A report in a window, and all that it said or asked for."""

    def __init__(self, browser: "Browser", path: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": WIDE, **context})
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def names(self) -> list[str]:
        """Return the file names of the cards that are shown."""
        return self.page.locator("#cards .name").all_inner_texts()


@pytest.fixture
def opened(browser: "Browser", path: Path) -> Iterator[Opened]:
    with Opened(browser, path) as window:
        yield window


def expected(report: Report, keep: Any) -> set[str]:
    """Return the names of the images for which ``keep(true, predicted)`` holds."""
    data = report.data
    return {
        name
        for name, true, predicted in zip(data["names"], data["true"], data["predicted"], strict=True)
        if keep(true, predicted)
    }


def test_report_opens_without_an_error_and_asks_for_nothing_but_itself(opened: Opened, path: Path):
    opened.page.mouse.wheel(0, 20_000)
    opened.page.locator("#cards .tile").first.click()

    assert opened.said == []
    assert {url for url in opened.asked if not url.startswith("data:")} == {path.as_uri()}


def test_class_table_sorts_by_each_heading_both_ways(opened: Opened):
    table = opened.page.locator("#classes table")
    recalls = "rows => rows.map(row => Number(row.cells[2].dataset.value))"

    table.get_by_role("button", name="Recall %").click()
    falling = table.locator("tbody tr").evaluate_all(recalls)
    table.get_by_role("button", name="Recall %").click()
    rising = table.locator("tbody tr").evaluate_all(recalls)
    table.get_by_role("button", name="Class").click()

    assert falling == sorted(falling, reverse=True)
    assert rising == falling[::-1]
    assert table.locator("tbody th").all_inner_texts() == CLASSES
    assert table.locator("th[aria-sort]").all_inner_texts() == ["Class"]
    assert table.locator("tfoot th").inner_text() == "Mean of the classes"


def test_search_finds_names_and_classes(opened: Opened):
    opened.page.locator("#find").fill("PHOTO-10")

    assert sorted(opened.names()) == [f"photo-{i}.png" for i in range(100, 110)]
    assert opened.page.locator("#found").inner_text() == "10 images"

    opened.page.locator("#find").fill("no such image")

    assert opened.names() == []
    assert opened.page.locator("#found").inner_text() == "0 images"


def test_filters_combine_and_clear(opened: Opened, report: Report):
    opened.page.locator("#of-true").select_option(label="bee")
    opened.page.locator("#of-kind").select_option("wrong")

    assert set(opened.names()) == expected(report, lambda true, predicted: true == 1 != predicted)

    opened.page.get_by_role("button", name="Clear").click()

    assert opened.page.locator("#found").inner_text() == "90 images"
    assert len(opened.names()) == 60  # a screenful, and more on demand
    opened.page.get_by_role("button", name="Show more").click()
    assert len(opened.names()) == 90
    assert not opened.page.get_by_role("button", name="Show more").is_visible()


@pytest.mark.parametrize("order", ["unsure", "sure", "name", "given"])
def test_images_are_ordered_as_asked(opened: Opened, report: Report, order: str):
    data = report.data
    keys = {
        "unsure": data["certainty"],
        "sure": [-c for c in data["certainty"]],
        "name": data["names"],
        "given": data["rows"],
    }

    opened.page.locator("#order").select_option(order)

    images = sorted(range(90), key=lambda i: (keys[order][i], data["rows"][i]))
    assert opened.names() == [data["names"][i] for i in images[:60]]


def test_copies_are_found_by_their_filter(opened: Opened):
    opened.page.locator("#of-kind").select_option("copy")

    assert sorted(opened.names()) == ["photo-090.png", "photo-091.png"]


def test_a_number_of_the_confusion_matrix_shows_its_images(opened: Opened, report: Report):
    cell = opened.page.locator(".matrix .wrong button").first
    true, predicted = int(cell.get_attribute("data-true") or ""), int(cell.get_attribute("data-predicted") or "")
    n = cell.inner_text()

    cell.click()

    found = expected(report, lambda *codes: codes == (true, predicted))
    assert set(opened.names()) == found
    assert len(found) == int(n)


def test_an_image_opens_with_its_probabilities_and_the_arrows_go_on(opened: Opened, report: Report):
    data, viewer = report.data, opened.page.locator("#viewer")

    opened.page.locator("#mistakes .tile").first.click()

    assert viewer.is_visible()
    assert opened.page.locator("#viewer-id").inner_text() == data["ids"][0]
    assert opened.page.locator("#viewer-image").evaluate("image => image.naturalWidth") == 24
    true, predicted = CLASSES[data["true"][0]], CLASSES[data["predicted"][0]]
    assert opened.page.locator("#viewer-title").inner_text() == f"{true}, taken for {predicted}"
    shares = [float(text.removesuffix("%")) for text in opened.page.locator("#likeliest dd span").all_inner_texts()]
    assert shares == pytest.approx([100 * share for _, share in data["likeliest"][0]], abs=0.051)
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.locator("#viewer-id").inner_text() == data["ids"][1]
    opened.page.locator("#similar .tile").first.click()
    assert opened.page.locator("#viewer-id").inner_text() == data["ids"][data["neighbours"][1][0]]
    opened.page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_map_shows_a_picture_beside_the_pointer_and_singles_out_a_class(opened: Opened, report: Report):
    point = opened.page.locator("#feature-map circle").last
    image = int(point.get_attribute("data-image") or "")

    point.hover()

    peek = opened.page.locator("#peek")
    assert peek.is_visible()
    assert (peek.locator("img").get_attribute("src") or "").endswith(report.data["pictures"][image])

    opened.page.locator(".map-legend button").nth(1).click()

    assert opened.page.locator("#feature-map circle:not(.dim)").count() == report.data["true"].count(1)


def background(window: Opened) -> str:
    found: str = window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_those_of_the_system_until_the_button_is_pressed(browser: "Browser", path: Path, scheme: str):
    light, dark = "rgb(252, 251, 249)", "rgb(20, 23, 27)"
    with Opened(browser, path, color_scheme=scheme) as window:
        before = background(window)
        window.page.locator("#theme").click()
        after = background(window)
        window.page.emulate_media(media="print")
        printed = background(window)

    assert [before, after] == ([light, dark] if scheme == "light" else [dark, light])
    assert printed == "rgb(255, 255, 255)"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_is_wider_than_the_window(browser: "Browser", path: Path, size: dict[str, int]):
    with Opened(browser, path, viewport=size) as window:
        on_page = window.page.evaluate("document.documentElement.scrollWidth")
        window.page.locator("#cards .tile").first.click()
        dialog = window.page.locator("#viewer").evaluate("found => [found.scrollWidth, found.clientWidth]")

    assert on_page == size["width"]
    assert dialog[0] == dialog[1]


def test_without_scripts_everything_but_the_browsing_is_there(browser: "Browser", path: Path):
    with Opened(browser, path, java_script_enabled=False) as window:
        mistakes = window.page.locator("#mistakes img")
        assert mistakes.first.is_visible()
        assert window.page.locator("#feature-map circle").count() == 90
        assert not window.page.locator("#images").is_visible()
        assert not window.page.locator("#theme").is_visible()


def test_everything_that_can_be_pressed_or_filled_in_has_a_name(opened: Opened):
    opened.page.locator("#cards .tile").first.click()

    nameless = opened.page.evaluate(
        """[...document.querySelectorAll("button, select, input, [role=img], img")].filter((found) =>
             found.checkVisibility() && !(found.getAttribute("aria-label") || found.alt || found.labels?.length
               || found.textContent.trim() || found.querySelector("img[alt]")))
             .map((found) => found.outerHTML.slice(0, 80))"""
    )

    assert nameless == []


def test_every_link_of_the_bar_leads_to_a_section(opened: Opened):
    targets = opened.page.locator("nav a").evaluate_all("links => links.map(link => link.getAttribute('href'))")

    assert len(targets) >= 9
    assert all(opened.page.locator(target).count() == 1 for target in targets)


@pytest.mark.slow
def test_two_thousand_images_stay_under_15_mb_and_open_in_under_two_seconds(
    browser: "Browser", cache_dir: Path, tmp_path: Path
):
    rng = np.random.RandomState(0)
    labels = np.arange(2000) % 10
    images = np.repeat(rng.randint(0, 256, (2000, 80, 80, 3), dtype=np.uint8), 2, axis=1).repeat(2, axis=2)
    probe = TransferClassifier(make_tiny_backbone(), strategy="probe", cache_dir=cache_dir, cv=3, random_state=0)
    probe.fit(images[:200], labels[:200])

    path = write_report(probe, images, labels, path=tmp_path / "report.html")

    assert path.stat().st_size < 15e6
    with Opened(browser, path) as window:
        client = window.context.new_cdp_session(window.page)
        client.send("Performance.enable")
        window.page.reload()
        metrics = {found["name"]: found["value"] for found in client.send("Performance.getMetrics")["metrics"]}
    assert metrics["ThreadTime"] < 2  # of the processor, so that it holds on a busy machine too
