"""How fast the dashboard is in Chromium, beside a bare page in the same run.

Run ``python tests/bench/dashboard.py``: from a changed input to updated figures, page switches, cold starts, and (with
``--sessions``) twenty sessions at once for ten minutes, asked over the server's agent interface.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
BARE = ROOT / "tests" / "bench" / "bare.py"
INPUTS = ROOT / "tests" / "bench" / "inputs.py"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu")
CHANGES, PART = 40, 10
STARTS = 3
WARM_MS = 30_000
"""How long a first visitor looks at the first page, while the server makes what others need."""
PAGES = ("Curves", "Hardware", "What helps", "Compare", "Survey", "Validation", "SQL", "Data", "Calculator")
TITLES = {"Hardware": "Choose hardware", "Calculator": " on "}
"""Headings that are not the page's name in the navigation."""
HEADED = """(text) => [...document.querySelectorAll('[data-testid=stMain] h2')].some((h) => h.innerText.includes(text)
  && !h.closest('[data-stale=true]'))"""
IDLE = """() => document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"""
WATCH = """(metric) => { window.watched = new Promise((done) => {
  const figure = () => [...document.querySelectorAll('[data-testid=stMetric]')]
    .find((m) => m.innerText.startsWith(metric))?.querySelector('[data-testid=stMetricValue]')?.innerText;
  const before = figure();
  let start = null;
  document.addEventListener('keydown', () => { start = performance.now(); }, {capture: true, once: true});
  const seen = new MutationObserver(() => {
    if (start !== null && figure() && figure() !== before) { seen.disconnect(); done(performance.now() - start); }
  });
  seen.observe(document.body, {subtree: true, childList: true, characterData: true});
}); }"""
"""Measures in the page from a pressed key to a figure's new text."""


@contextmanager
def served(script: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve a script on a free port; returns its address at once, before it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "streamlit", "run", str(script), "--server.headless", "true", "--server.port",
            str(port), "--server.address", "127.0.0.1", "--server.fileWatcherType", "none",
            "--browser.gatherUsageStats", "false", *flags]  # fmt: skip
    server = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/", server
    finally:
        server.terminate()
        server.wait()


def awake(where: str) -> None:
    """Wait until a server answers."""
    while True:
        try:
            with urllib.request.urlopen(f"{where}_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.02)


def drawn(page: Page, where: str) -> None:
    """Open a page and wait for its first chart."""
    page.goto(where)
    page.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas").first.wait_for(
        timeout=60_000
    )


def changed(page: Page, key: str, metric: str, values: list[str | None]) -> list[float]:
    """Return the milliseconds from each key press to the figure's new text; a value of None moves a slider."""
    times = []
    page.bring_to_front()
    for value in values:
        page.wait_for_timeout(700)
        box = page.locator(key).first
        box.focus()
        if value is not None:
            box.fill(value)
        page.evaluate(WATCH, metric)
        page.keyboard.press("ArrowRight" if value is None else "Enter")
        times.append(float(page.evaluate("window.watched")))
    return times


def told(name: str, times: list[float]) -> tuple[float, float]:
    """Print and return the median and the 95th percentile."""
    middle, high = median(times), quantiles(times, n=20)[-1]
    print(f"{name:38} median {middle:7.0f} ms   p95 {high:7.0f} ms   of {len(times)}")
    return middle, high


def changes(page: Page) -> None:
    """Compare a change of the Calculator's batch with one of the bare page's slider, in alternating rounds.

    A page with the Calculator's inputs alone shows what those take before anything is calculated.
    """
    slider, batch = "[role=slider], .st-key-value input", ".st-key-batch input"
    asked = {
        "bare page, a slider": (BARE, slider, "Square"),
        "the Calculator's inputs alone": (INPUTS, batch, "Requests"),
        "Calculator, its batch": (ROOT / "app.py", batch, "Whole answer"),
    }
    times: dict[str, list[float]] = {name: [] for name in asked}
    with ExitStack() as servers:
        pages = {}
        for name, (script, _, figure) in asked.items():
            where, _ = servers.enter_context(served(script))
            awake(where)
            pages[name] = page.context.browser.new_page(viewport={"width": 1280, "height": 900})
            pages[name].goto(where)
            pages[name].get_by_test_id("stMetric").filter(has_text=figure).wait_for()
        page.wait_for_timeout(8000)
        for nth in range(CHANGES // PART + 1):
            for name, (_, key, figure) in asked.items():
                values = [None if key == slider else str(2 + nth * PART + k) for k in range(PART)]
                took = changed(pages[name], key, figure, values)
                # the first round warms up
                times[name] += took if nth else []
        for opened in pages.values():
            opened.close()
    bare, *others = (told(name, taken) for name, taken in times.items())
    for name, (middle, high) in zip(list(asked)[1:], others, strict=True):
        print(f"{name}: {middle / bare[0]:.2f} of the bare page at the median, {high / bare[1]:.2f} at p95")


def switches(page: Page) -> None:
    """Print how long each page takes to its heading and content, cold and warm."""
    with served(ROOT / "app.py") as (app, _):
        awake(app)
        drawn(page, app)
        page.wait_for_timeout(WARM_MS)
        for round_ in ("first", "again", "again"):
            for name in PAGES:
                start = time.perf_counter()
                # an icon is a word too: the one of SQL is "database"
                page.get_by_test_id("stTopNavLink").filter(has_text=re.compile(f"{name}$")).first.click()
                page.wait_for_url(f"**/{'' if name == 'Calculator' else name.lower().replace(' ', '_')}*")
                # the old page's elements stay until the new one has drawn over them
                heading = TITLES.get(name, name)
                page.wait_for_function(HEADED, arg=heading)
                headed = time.perf_counter() - start
                page.wait_for_function(IDLE, timeout=120_000)
                whole = time.perf_counter() - start
                print(f"{name:12} {round_:6} heading {1e3 * headed:6.0f} ms, whole {1e3 * whole:6.0f} ms")
                page.wait_for_timeout(1500)


def starts(page: Page) -> None:
    """Compare the time from the start of a server to its first chart."""
    ours, theirs = [], []
    for _ in range(STARTS):
        for script, times in ((BARE, theirs), (ROOT / "app.py", ours)):
            start = time.perf_counter()
            with served(script) as (where, _):
                awake(where)
                drawn(page, where)
                times.append(time.perf_counter() - start)
    print(
        f"cold start to the first chart: bare {median(theirs):.2f} s, ours {median(ours):.2f} s, ratio {median(ours) / median(theirs):.2f}"
    )


def ask(where: str, **body: object) -> dict[str, object]:
    """Send one interaction and return what the page then is."""
    request = urllib.request.Request(
        f"{where}_stcore/agent/interact", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def sessions(count: int, minutes: float) -> None:
    """Print the times of sessions that each change an input every five seconds, and the server's memory meanwhile."""
    times: list[float] = []
    held: list[float] = []
    with served(ROOT / "app.py", "--server.enableAgentApi", "true") as (app, server):
        awake(app)
        end = time.monotonic() + 60 * minutes

        def one(number: int) -> None:
            name = ask(app)["session_id"]
            time.sleep(5 * number / count)
            batch = 1 + number * 500 // count
            while time.monotonic() < end:
                batch = batch % 500 + 1
                start = time.perf_counter()
                ask(app, session_id=name, widget_state={"batch": batch})
                took = time.perf_counter() - start
                times.append(1e3 * took)
                time.sleep(max(0.0, 5 - took))

        workers = [threading.Thread(target=one, args=(n,)) for n in range(count)]
        for worker in workers:
            worker.start()
        while any(w.is_alive() for w in workers):
            status = Path(f"/proc/{server.pid}/status").read_text().split("VmRSS:")[1].split()[0]
            held.append(int(status) / 1e3)
            time.sleep(5)
    told(f"{count} sessions, a change every 5 s", times)
    step = max(1, len(held) // 10)
    print("memory of the server, MB:", *(f"{m:.0f}" for m in held[::step]))


def main() -> None:
    """Run what is asked for; everything but the sessions by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["changes", "switches", "starts"])
    parser.add_argument("--sessions", type=int, default=0, help="how many sessions at once")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    if options.sessions:
        sessions(options.sessions, options.minutes)
        return
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS), headless=True)
        for what in options.what:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            {"changes": changes, "switches": switches, "starts": starts}[what](page)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
