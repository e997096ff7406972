"""The dashboard in a real browser: what only a browser shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import polars as pl
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

import calc

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


PAGES = ("", "curves", "hardware", "what_helps?groups=system", "compare", "survey", "sql", "data")
QUIET = "_stcore/"
"""A page's own address is tried as the server's before the right one is: Streamlit's way to find it."""


def settled(page: Page) -> None:
    """Wait until a page says that it is drawn."""
    expect(page.get_by_test_id("stHeading").first).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_function(
        "() => !document.querySelector('[data-testid=stSpinner], [data-testid=stProgress], [data-stale=true]')"
        " && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'",
        timeout=3 * PATIENCE_MS,
    )


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_loads_clean(browser: Browser, url: str, width: int, path: str) -> None:
    """No exception, no error on the console, nothing fetched from elsewhere, nothing cut off, light and dark."""
    page = browser.new_page(viewport={"width": width, "height": 1800}, color_scheme="light")
    told: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and QUIET not in (message.location or {}).get("url", ""):
            told.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("requestfailed", lambda request: told.append(f"{request.url} failed"))
    page.goto(url + path)
    settled(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_timeout(500)
        settled(page)
        assert page.get_by_test_id("stException").count() == 0
        assert page.locator("[data-testid=stAlertContentError]").count() == 0
        assert told == []
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, "the page scrolls sideways"
        cut = page.get_by_test_id("stMetricValue").evaluate_all(
            "els => els.filter(e => e.scrollWidth > e.clientWidth + 1).length"
        )
        assert cut == 0, "a figure is cut off"
        drawn = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert (drawn == "rgb(255, 255, 255)") == (scheme == "light")
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
    before = metric(page, "Whole answer")
    batch = page.locator(".st-key-batch input")
    batch.fill("4")
    batch.press("Enter")
    page.wait_for_url("**/?batch=4", timeout=PATIENCE_MS)
    expect(page.get_by_test_id("stMetric").filter(has_text="Whole answer")).not_to_contain_text(
        before, timeout=PATIENCE_MS
    )
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


def test_a_click_on_a_point_opens_its_formula(page: Page, url: str) -> None:
    """The roofline's points are operators."""
    visit(page, url)
    points = page.locator(".st-key-Roofline svg .mark-symbol.role-mark path")
    name = points.last.get_attribute("aria-label") or ""
    points.last.click(force=True)
    operator = next(part.partition(": ")[2] for part in name.split("; ") if part.startswith("Operator: "))
    expect(page.locator(".st-key-cell input").first).to_have_value(
        re.compile(rf"\.{operator}\.time_s$"), timeout=PATIENCE_MS
    )


def test_a_click_on_a_node_opens_its_formula(page: Page, url: str) -> None:
    """The graph's nodes are operators of a part."""
    visit_graph = f"{url}?view=Graph&graph_part=mlp&graph_stage=decode"
    page.goto(visit_graph)
    settled(page)
    graph = page.locator(".st-key-graph").first
    expect(graph).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(1500)
    box = graph.bounding_box()
    assert box
    # the stream comes first, its norm below it, in the middle
    for down in range(16, int(box["height"]) - 60, 12):
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + down)
        page.wait_for_timeout(150)
        if page.locator(".st-key-cell input").first.input_value():
            break
    expect(page.locator(".st-key-cell input").first).to_have_value("decode.mlp.mlp_norm.time_s", timeout=PATIENCE_MS)


def test_downloads_hold_what_is_shown(page: Page, url: str, tmp_path: Path) -> None:
    """CSV, Parquet and XLSX of the operators, PNG and SVG of the roofline."""
    visit(page, f"{url}?model=facebook/opt-125m")
    wanted = calc.analyze("facebook/opt-125m", "nvidia_rtx_a6000", input_len=2048)
    section = page.locator("[data-testid=stPopover]").filter(has_text="Download").nth(1)
    section.locator("button").first.click()
    for ending in ("csv", "parquet", "xlsx", "png", "svg"):
        with page.expect_download(timeout=PATIENCE_MS) as waited:
            page.locator(f".st-key-operators-{ending} button").click()
        file = tmp_path / waited.value.suggested_filename
        waited.value.save_as(file)
        assert file.name == f"operators.{ending}"
        if ending == "svg":
            assert "<svg" in file.read_text(encoding="utf-8")[:300]
        elif ending == "png":
            assert file.read_bytes().startswith(b"\x89PNG")
        else:
            read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "xlsx": sheet}[ending]
            found = read(file)
            assert found["operator"].to_list() == wanted["operator"].to_list()
            assert found["time_s"].to_list() == pytest.approx(wanted["time_s"].to_list(), rel=1e-12)


def test_every_page_gives_the_question_as_a_live_spreadsheet(page: Page, url: str, tmp_path: Path) -> None:
    """The workbook holds what the page shows; pages without a question give the one that was asked last."""
    visit(page, f"{url}?model=facebook/opt-125m&technique=kv_int8&batch=3")
    with page.expect_download(timeout=4 * PATIENCE_MS) as waited:
        page.get_by_role("button", name="Live spreadsheet").click()
    waited.value.save_as(tmp_path / waited.value.suggested_filename)
    book = openpyxl.load_workbook(tmp_path / "opt-125m.xlsx", data_only=True)
    shown = {row[3].value: row[1].value for row in book["Serving"].iter_rows()}
    asked = {"input_len": 2048, "technique": "kv_int8", "batch": 3}
    wanted = calc.analyze("facebook/opt-125m", "nvidia_rtx_a6000", by="serving", **asked)
    assert shown["tpot_s"] == pytest.approx(wanted["tpot_s"][0], rel=1e-12)
    for name in ("Curves", "Hardware", "What helps", "Compare", "Survey", "Validation", "SQL", "Data"):
        page.get_by_test_id("stTopNavLink").filter(has_text=re.compile(f"{name}$")).first.click()
        expect(page.get_by_test_id("stHeading").first).to_contain_text(name, ignore_case=True, timeout=PATIENCE_MS)
        settled(page)
        expect(page.get_by_role("button", name=re.compile("Live spreadsheet"))).to_be_visible(timeout=PATIENCE_MS)


def test_rows_of_a_spreadsheet_are_pasted(page: Page, url: str) -> None:
    """Onto the first cell of the page's own rows: as many rows as were copied, each answered."""
    page.goto(f"{url}compare?many=Your+own+rows")
    expect(page.get_by_role("button", name="Live spreadsheet: 1 scenario")).to_be_visible(timeout=PATIENCE_MS)
    settled(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('opt-125m\\th100\\t16\\nopt-1.3b\\ta100\\t8\\nopt-6.7b\\ta100\\t1')")
    box = page.locator("[data-testid=stDataFrame] canvas").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 80, box["y"] + HEAD + ROW / 2)
    # as a hand would: the table draws what is selected first
    page.wait_for_timeout(300)
    page.keyboard.press("Control+v")
    expect(page.get_by_role("button", name="Live spreadsheet: 3 scenarios")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)


def sheet(file: Path) -> pl.DataFrame:
    """Return the first sheet of a workbook."""
    book = openpyxl.load_workbook(file, read_only=True)
    header, *rows = book.worksheets[0].iter_rows(values_only=True)
    return pl.DataFrame(rows, schema=[str(h) for h in header], orient="row", infer_schema_length=None)


def test_queries_run_and_stop(page: Page, url: str) -> None:
    """Hostile ones are refused with a sentence, and the next is answered; the query is in the URL."""
    page.goto(f"{url}sql")
    settled(page)
    editor = page.get_by_label("Query", exact=True)
    hostile = ("select * from read_text('/etc/passwd')", "copy models to '/tmp/x.csv'", "attach 'x.db'", "set threads = 99",
               "select getenv('HOME')", "select repeat('x', 2000000000)")  # fmt: skip
    for query in hostile:
        editor.fill(query)
        editor.press("Control+Enter")
        expect(page.get_by_text("No answer")).to_be_visible(timeout=2 * PATIENCE_MS)
        settled(page)
    editor.fill("select count(*) as n from models")
    editor.press("Control+Enter")
    expect(page.get_by_text("1 rows in")).to_be_visible(timeout=PATIENCE_MS)
    assert "query=" in page.url
    page.goto(page.url)
    settled(page)
    expect(page.get_by_label("Query", exact=True)).to_have_value("select count(*) as n from models")


@pytest.mark.parametrize(
    ("path", "key", "shown"),
    [
        ("curves?y=Time+per+output+token&most_batch=64", "most_batch", "64"),
        ("hardware?users=16&limit_tpot=20", "limit_tpot", "20"),
        ("compare?batch_b=8&many=3", "batch_b", "8"),
        ("survey?figure=Figure+8&figure_8_input_len=2048", "figure_8_input_len", "2048"),
        ("data?table=Devices&search_hardware=h100", "search_hardware", "h100"),
    ],
)  # fmt: skip
def test_links_reproduce_pages(page: Page, url: str, path: str, key: str, shown: str) -> None:
    """What the URL says is what the page shows, and stays in the URL."""
    page.goto(url + path)
    settled(page)
    expect(page.locator(f".st-key-{key} input").first).to_have_value(shown, timeout=PATIENCE_MS)
    assert page.get_by_test_id("stException").count() == 0 and f"{key}={shown}" in page.url


def test_the_grid_is_asked(page: Page, url: str) -> None:
    """The page SQL builds its grid at the first start; the cookbook's questions are asked of it."""
    page.goto(f"{url}sql?source=Grid&query=select+count(*)+as+n+from+serving")
    expect(page.get_by_text("1 rows in")).to_be_visible(timeout=3 * PATIENCE_MS)
    page.get_by_role("button", name="Saved questions").click()
    page.get_by_text("Top devices").click()
    settled(page)
    expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)
    expect(page.get_by_label("Query", exact=True)).to_have_value(re.compile("Which twenty devices"))
