"""Draw the README's pictures: ``python tests/pictures.py`` serves the dashboard and writes ``calc/ui/*.png``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "bench"))

from dashboard import FLAGS, awake, served  # noqa: E402

PICTURES = {
    "calculator": ("?model=meta-llama/Meta-Llama-3-8B&hardware=H100+80GB+SXM5&batch=16", 1080, "light"),
    "hardware": ("hardware?model=Qwen/Qwen3-32B&users=50", 1480, "dark"),
    "what_helps": ("what_helps?technique=awq_w4&technique=kv_int8&technique=eagle", 1260, "light"),
    "curves": ("curves?model=meta-llama/Meta-Llama-3-8B&hardware=H100+80GB+SXM5&y=Time+per+output+token", 900, "dark"),
}
"""Name, address, height and colours of each."""
SETTLED = """() => !document.querySelector('[data-testid=stSpinner], [data-testid=stProgress], [data-stale=true]')
  && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"""


def main() -> None:
    """Write every picture."""
    with served(ROOT / "app.py") as (where, _), sync_playwright() as driver:
        awake(where)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS), headless=True)
        for name, (path, height, scheme) in PICTURES.items():
            page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(where + path)
            page.locator("[data-testid=stVegaLiteChart] svg, [data-testid=stVegaLiteChart] canvas").first.wait_for(
                timeout=90_000
            )
            page.wait_for_function(SETTLED, timeout=90_000)
            page.wait_for_timeout(1500)
            page.screenshot(path=ROOT / "calc" / "ui" / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
