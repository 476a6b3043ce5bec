"""The page in a real browser: whole flows by mouse and keyboard, both colour schemes, narrow and wide screens."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the page is not installed: pip install 'promptmii[ui]'")
pytest.importorskip("uvicorn")

from tests.chromium import chromium
from tests.models.model_hub import TINY, Hub
from tests.models.model_hub import serving as hub_serving
from tests.report.synthetic import write_run
from tests.ui.server import TOKEN, serving
from tests.ui.toy import RULES, Models
from tests.ui.trials import many_rows

from promptmii.data import demo_path
from promptmii.ui.trials import PAGE

pytestmark = pytest.mark.browser
FIRST_PAINT = 300.0
"""Milliseconds."""
WORSE = RULES.replace("money back, return, send back, refund, cancel", "coins")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


class Visit:
    """A browser on the page, with its console errors and foreign requests."""

    def __init__(self, browser: Any, url: str, models: Models, home: Path, **options: Any) -> None:
        self.url, self.models, self.home = url, models, home
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(30_000)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._ours(request.url))
        self.page.goto(f"{url}/?token={TOKEN}")

    def _ours(self, address: str) -> None:
        if not address.startswith((self.url, "data:")):
            self.complaints.append(f"asked for {address}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, name: str) -> None:
        """Press Tab until the named element has the focus, and check that the focus is visible."""
        for _ in range(80):
            self.press("Tab")
            if name in (focused := self.page.evaluate(FOCUSED))[0]:
                assert focused[1], f"the focus on {name!r} cannot be seen"
                return
        raise AssertionError(f"Tab does not lead to {name!r}")

    def run(self) -> str:
        """Run the sample and return the address of the finished run."""
        self.page.get_by_role("button", name="Use the sample").click()
        self.page.select_option("#generator", "other")
        self.page.fill("#generator_other", "toy")
        self.page.fill("#evaluate", "40")
        self.page.click("#go")
        self.page.wait_for_selector("#compared")
        return self.page.url


FOCUSED = """() => {
  const node = document.activeElement;
  const shown = [node, node.parentElement, node.nextElementSibling].filter(Boolean);
  const seen = shown.some((element) => getComputedStyle(element).outlineStyle !== "none");
  const label = node.labels?.[0]?.innerText ?? "";
  return [`${node.getAttribute("aria-label") ?? ""} ${label} ${node.innerText ?? ""} ${node.value ?? ""}`, seen];
}"""


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Visit]:
    models, home = Models(), tmp_path / "home"
    write_run(tmp_path / "runs" / "first", 4, ("naive", "mii"), (5,), 1, rows=20)
    with serving(home, models, tmp_path / "runs") as url:
        visit = Visit(browser, url, models, home)
        yield visit
        visit.page.close()
        assert visit.complaints == []


def test_from_a_dropped_table_to_an_exported_edit(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    path = tmp_path / "tickets.csv"
    path.write_bytes(demo_path().read_bytes())
    page.set_input_files("#file", path)
    page.wait_for_selector("h1:has-text('tickets.csv')")
    page.get_by_role("radio", name="id").check()
    page.wait_for_selector("#labels [role=alert]")
    page.get_by_role("radio", name="label").check()
    page.get_by_role("checkbox", name=re.compile("account")).uncheck()
    page.select_option("#generator", "other")
    page.fill("#generator_other", "toy")
    page.fill("#evaluate", "40")
    visit.models.delay = 0.01
    page.click("#go")
    page.wait_for_selector(".progress .now")
    page.wait_for_selector("pre.text:has-text('Tickets of a shop')")  # before it is measured
    assert page.locator("#compared").count() == 0
    page.reload()
    page.wait_for_selector(".progress .now")
    page.wait_for_selector("#compared")
    assert page.locator("#running a").count() == 0
    assert page.locator(".compare tbody tr").count() == 3
    assert "account" not in page.inner_text(".confusion")

    page.fill("#typed", "the courier lost my parcel")
    page.get_by_role("button", name="Label it").click()
    page.wait_for_selector("#answer .chances")
    assert page.inner_text("#answer .outcome") == "delivery"

    page.locator(".confusion .right button").first.click()
    page.wait_for_selector("#rows h3:has-text('labelled')")
    count = int(page.locator(".confusion .right button").first.inner_text())
    assert page.locator("#rows tbody tr").count() == count
    page.get_by_role("button", name="Label list alone").click()
    page.wait_for_selector("[aria-pressed=true]:has-text('Label list alone')")

    page.fill("#instruction", WORSE)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#edit .changes .mark")
    page.click("text=Open the edit")
    page.wait_for_selector("th:has-text('Before the edit')")
    with page.expect_download() as download:
        page.get_by_role("link", name="python", exact=True).click()
    assert "coins" in Path(download.value.path()).read_text("utf-8")
    page.click("nav >> text=History")
    assert page.locator("tbody tr").count() == 2
    assert page.locator("th.depth-1 a").inner_text() == "Edit"


def test_an_invalid_form_keeps_its_input(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Use the sample").click()
    page.select_option("#generator", "other")
    page.fill("#generator_other", "toy")
    page.fill("#evaluate", "40")
    page.get_by_text("Server and prices").click()
    page.fill("#price_prompt", "1")
    page.click("#go")
    page.wait_for_selector("#problem [role=alert]:has-text('both prices')")
    assert [page.input_value(f"#{name}") for name in ("generator_other", "evaluate")] == ["toy", "40"]
    page.fill("#price_completion", "2")
    page.click("#go")
    page.wait_for_selector("#compared")


def test_another_text_column_keeps_the_ticks_beside_a_very_long_prompt(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Use the sample").click()
    page.get_by_text("More options").click()
    page.fill("#start", "Label each ticket. " * 5_000)
    page.uncheck("[name=labels][value=refund]")
    page.check("[name=text][value=id]", force=True)
    page.wait_for_selector("#labels .preview:has-text('id: ')")
    assert not page.is_checked("[name=labels][value=refund]")
    assert page.is_checked("[name=labels][value=billing]")


def test_an_edit_is_measured_while_it_is_typed(visit: Visit) -> None:
    page = visit.page
    visit.run()
    page.check("#typing")
    page.click("#instruction")
    page.keyboard.press("Control+End")
    page.keyboard.type("\n- defect: parcel, courier, order.")
    page.wait_for_selector("#edit .difference")
    assert page.locator("#edit .changes li").count() > 0


def test_a_model_is_installed_with_a_button(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_serving(Hub(pause=0.02)) as hub:
        places = {"PROMPTMII_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        with serving(tmp_path / "home", Models(), installable={TINY.name: TINY}) as url:
            visit = Visit(browser, url, Models(), tmp_path)
            visit.page.get_by_role("button", name="Use the sample").click()
            visit.page.get_by_role("button", name="Install").click()
            visit.page.wait_for_selector("text=of 3 MB")
            visit.page.wait_for_selector("#generator option[value=tiny]:not([disabled])", state="attached")
            assert visit.page.input_value("#generator") == "tiny"
            assert visit.page.inner_text("#installs") == ""
            assert visit.complaints == []
            visit.page.close()


def test_a_run_is_stopped(visit: Visit) -> None:
    page = visit.page
    visit.models.delay = 0.02
    page.get_by_role("button", name="Use the sample").click()
    page.select_option("#generator", "other")
    page.fill("#generator_other", "toy")
    page.click("#go")
    page.wait_for_selector("pre.text")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=You stopped this run")
    page.get_by_role("link", name="Try again").click()
    assert page.input_value("#generator") == "toy"


def test_an_edit_is_stopped_and_its_text_survives_a_reload(visit: Visit) -> None:
    page = visit.page
    visit.models.delay = 0.08
    visit.run()
    page.fill("#instruction", WORSE)
    page.click("#measure")
    page.wait_for_selector("#edit .live")
    page.reload()
    assert page.input_value("#instruction") == WORSE
    page.locator("#edit").get_by_role("button", name="Stop").click(delay=500)  # longer than the updates are apart
    page.wait_for_selector("#edit .hint:has-text('Stopped')")
    assert not page.locator("#edit .stop").is_visible()


def test_back_leads_to_the_form_as_it_was_sent(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Use the sample").click()
    page.check("[name=label_column][value=text]", force=True)
    page.wait_for_selector("#labels [role=alert]")
    page.select_option("#generator", "other")
    page.fill("#generator_other", "toy")
    page.click("nav >> text=History")
    page.go_back()
    page.wait_for_selector("#labels [role=alert]")  # the labels of the other column, not those of the first
    assert page.input_value("#generator_other") == "toy"


def test_everything_works_by_keyboard(visit: Visit) -> None:
    page = visit.page
    visit.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to content"
    visit.tab_to("Use the sample")
    visit.press("Enter")
    page.wait_for_selector("#labels")
    visit.tab_to("refund")
    visit.press("Space")
    assert not page.is_checked("input[value=refund]")
    visit.press("Space")
    visit.tab_to("Writer")
    page.keyboard.type("Another")
    visit.press("Tab")
    page.keyboard.type("toy")
    visit.tab_to("Held-back rows")
    page.keyboard.type("40")
    visit.tab_to("Write and measure")
    visit.press("Enter")
    page.wait_for_selector("#compared")
    visit.tab_to("Text of the instruction")
    visit.press("Control+End")
    page.keyboard.type("\n- defect: parcel, courier, order.")
    visit.press("Control+Enter")
    page.wait_for_selector("#edit .difference")
    visit.tab_to("Text to label")
    page.keyboard.type("my invoice")
    visit.press("Control+Enter")
    page.wait_for_selector("#answer .chances")
    visit.tab_to("labelled")
    visit.press("Enter")
    page.wait_for_selector("#rows h3:has-text('labelled')")
    visit.tab_to("New run with these settings")
    visit.press("Enter")
    page.wait_for_selector("#labels")


def test_the_report_of_a_run_opens_in_the_page(visit: Visit) -> None:
    page = visit.page
    page.click("nav >> text=Reports")
    page.click(".pick")
    page.wait_for_selector("iframe", timeout=90_000)
    frame = page.frame_locator("iframe")
    frame.locator("h1").wait_for()
    assert frame.locator("figure svg").count() > 0
    assert page.locator("nav [aria-current]").inner_text() == "Reports"


def test_a_server_that_is_gone_is_named(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "home", Models()) as url:
        visit = Visit(browser, url, Models(), tmp_path)
        visit.page.get_by_role("button", name="Use the sample").click()
        visit.page.wait_for_selector("#labels")
    visit.page.click("#go")
    visit.page.wait_for_selector("#notice:has-text('does not answer any more')")
    visit.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1920])
def test_every_page_fits_in_both_schemes(browser: Any, visit: Visit, width: int, scheme: str) -> None:
    trial = visit.run()
    other = Visit(
        browser,
        visit.url,
        visit.models,
        visit.home,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
    )
    for path in ("/", "/new?data=sample", trial.removeprefix(visit.url), "/history", "/reports", "/nothing"):
        other.page.goto(visit.url + path)
        assert other.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        ink, paper = other.page.evaluate(COLOURS)
        assert (lightness(paper) > lightness(ink)) == (scheme == "light")
        assert other.page.evaluate(NAMED), path
    other.page.goto(visit.url)
    other.page.click("#theme")
    other.page.reload()
    paper = other.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (lightness(paper) > 128) == (scheme == "dark")  # the choice is kept
    other.page.close()
    assert [message for message in other.complaints if "404" not in message] == []


COLOURS = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
NAMED = """[...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
  .every((element) => element.labels.length)"""


def lightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def test_the_first_paint_is_quick_and_ten_thousand_rows_scroll(visit: Visit) -> None:
    page = visit.page
    address = visit.url + many_rows(visit.home)
    for path in (visit.url, address, f"{visit.url}/history"):
        paints: list[float] = []
        while len(paints) < 3:
            page.goto(path)
            while (painted := page.evaluate(PAINTED)) is None:
                page.wait_for_timeout(20)
            paints.append(painted)
        assert min(paints) < FIRST_PAINT, (path, paints)
    page.goto(address)
    page.get_by_role("button", name="All rows").click()
    page.wait_for_selector("#rows h3:has-text('10,000')")
    for number in range(1, 13):
        page.evaluate("document.querySelector('#rows .long').scrollTop = 1e9")
        page.wait_for_selector(f"#rows tbody tr:nth-child({number * PAGE + 1})", state="attached")
