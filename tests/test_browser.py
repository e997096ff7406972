"""The dashboard in a real browser: what only a browser shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 30_000
HEAD = ROW = 35
"""Pixels of a table's header and of a row: tables draw themselves on a canvas."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install it or name it in CHROMIUM"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the dashboard on a free port, as at its first start, and return where."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"http://127.0.0.1:{port}/"
    call = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true", "--server.port", str(port),
            "--server.address", "127.0.0.1", "--server.fileWatcherType", "none"]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k not in ("CALC_DATA", "CALC_GRID")}
    environment["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    server = subprocess.Popen(
        call, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not _is_up(where):
            assert server.poll() is None, server.communicate()[0]
            assert time.monotonic() < deadline, "the server did not start within a minute"
            time.sleep(0.2)
        yield where
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the system's Chromium."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), headless=True)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a desktop page."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1800})
    yield opened
    opened.close()


def _is_up(where: str) -> bool:
    try:
        with urllib.request.urlopen(f"{where}_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def visit(page: Page, where: str) -> None:
    """Open the page and wait until all of it is drawn."""
    page.goto(where)
    expect(page.get_by_test_id("stCode").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[class*=st-key-operators-] .dvn-scroller")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first).to_be_visible(timeout=PATIENCE_MS)


def field(page: Page, key: str) -> str:
    """Return what an input holds."""
    return str(page.locator(f".st-key-{key} input").first.input_value())


def metric(page: Page, label: str) -> str:
    """Return a headline figure."""
    return str(page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_loads_clean(browser: Browser, url: str, width: int, scheme: str) -> None:
    """No exception, no error on the console, nothing fetched from elsewhere, nothing cut off."""
    page = browser.new_page(viewport={"width": width, "height": 1800}, color_scheme=scheme)  # type: ignore[arg-type]
    told: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            told.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("requestfailed", lambda request: told.append(f"{request.url} failed"))
    visit(page, url)
    page.wait_for_timeout(1000)
    assert page.get_by_test_id("stException").count() == 0
    assert told == []
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "the page scrolls sideways"
    cut = page.get_by_test_id("stMetricValue").evaluate_all(
        "els => els.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert cut == 0, "a figure is cut off"
    dark = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
    page.close()


def test_the_url_sets_the_page(page: Page, url: str) -> None:
    """Inputs, figures and formula follow the URL."""
    visit(
        page, f"{url}?model=facebook/opt-6.7b&hardware=H100+80GB+SXM5&batch=8&stage=decode&cell=decode.mlp.up_proj.ops"
    )
    expect(page.get_by_role("heading", name="opt-6.7b on H100 80GB SXM5")).to_be_visible()
    assert field(page, "batch") == "8"
    assert field(page, "cell") == "decode.mlp.up_proj.ops"
    expect(page.get_by_test_id("stCode").first).to_contain_text("ops = matrix_ops + vector_ops")


def test_the_page_sets_the_url(page: Page, url: str) -> None:
    """The URL follows the inputs, and opens the same figures again."""
    visit(page, url)
    before = metric(page, "KV cache")
    batch = page.locator(".st-key-batch input")
    batch.fill("4")
    batch.press("Enter")
    page.wait_for_url("**/?batch=4", timeout=PATIENCE_MS)
    expect(page.get_by_test_id("stMetric").filter(has_text="KV cache")).not_to_contain_text(before, timeout=PATIENCE_MS)
    figure = metric(page, "Time to first token")
    page.locator(".st-key-sheet").get_by_role("radio", name="llm_viewer").or_(
        page.locator(".st-key-sheet button", has_text="llm_viewer")
    ).first.click()
    page.wait_for_url("**/?batch=4&sheet=llm_viewer", timeout=PATIENCE_MS)
    expect(page.get_by_test_id("stMetric").filter(has_text="Time to first token")).not_to_contain_text(
        figure, timeout=PATIENCE_MS
    )
    figure = metric(page, "Time to first token")
    visit(page, page.url)
    assert metric(page, "Time to first token") == figure
    page.goto(f"{url}?batch=nonsense&model=nobody")
    expect(page.get_by_role("heading", name="Llama-2-7b-hf on RTX A6000")).to_be_visible(timeout=PATIENCE_MS)
    assert field(page, "batch") == "1"


def test_a_click_on_a_cell_opens_its_formula(page: Page, url: str) -> None:
    """By mouse and by arrow keys."""
    visit(page, f"{url}?stage=decode")
    table = page.locator(".st-key-operators-decode .dvn-scroller")
    table.click(position={"x": 20, "y": HEAD + 2 * ROW + ROW // 2})
    expect(page.locator(".st-key-cell input").first).to_have_value(
        "decode.attention.q_proj.time_s", timeout=PATIENCE_MS
    )
    page.wait_for_url("**cell=decode.attention.q_proj.time_s", timeout=PATIENCE_MS)
    for _ in ("stage", "part", "all_s", "share", "bound"):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".st-key-cell input").first).to_have_value("decode.attention.q_proj.bound", timeout=PATIENCE_MS)
    expect(page.get_by_test_id("stCode").first).to_contain_text("= memory")


def test_a_click_after_sorting_finds_its_row(page: Page, url: str) -> None:
    """Sorting happens in the browser; the row clicked is still the right one."""
    visit(page, f"{url}?stage=decode")
    table = page.locator(".st-key-operators-decode .dvn-scroller")
    table.click(position={"x": 30, "y": HEAD // 2})
    page.wait_for_timeout(500)
    table.click(position={"x": 20, "y": HEAD + ROW // 2})
    expect(page.locator(".st-key-cell input").first).to_have_value(
        "decode.attention.attn_add.time_s", timeout=PATIENCE_MS
    )


def test_a_click_on_a_precedent_follows_it(page: Page, url: str) -> None:
    """One step down, one step back."""
    visit(page, f"{url}?cell=decode.attention.q_proj.time_s")
    reads = page.locator("[class*=st-key-reads-] .dvn-scroller")
    reads.click(position={"x": 20, "y": HEAD + ROW + ROW // 2})
    expect(page.get_by_test_id("stCode").first).to_contain_text("compute_s = IF", timeout=PATIENCE_MS)
    page.locator(".st-key-back-0 button").click()
    expect(page.get_by_test_id("stCode").first).to_contain_text("time_s = IF", timeout=PATIENCE_MS)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_grid_is_asked(browser: Browser, url: str, width: int) -> None:
    """The second page builds its grid at the first visit, and its limits stand in the URL."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.goto(f"{url}deployments?grid_tpot_s=20")
    expect(page.get_by_text("96,768 deployments, asked in")).to_be_visible(timeout=2 * PATIENCE_MS)
    expect(page.locator(".dvn-scroller")).to_be_visible(timeout=PATIENCE_MS)
    assert field(page, "grid_tpot_s") == "20" and page.get_by_test_id("stException").count() == 0
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "the page scrolls sideways"
    page.close()
