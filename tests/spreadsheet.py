"""A real spreadsheet program for tests: LibreOffice Calc, headless, told to calculate every file that it loads."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import openpyxl

PROGRAM = shutil.which("soffice")
RECALCULATE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry" xmlns:xs="http://www.w3.org/2001/XMLSchema"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<item oor:path="/org.openoffice.Office.Calc/Formula/Load"><prop oor:name="OOXMLRecalcMode" oor:op="fuse">
<value>0</value></prop></item></oor:items>
"""
"""Without it a file's own values are shown, and a comparison would be of those with themselves."""


def recalculated(files: Sequence[Path], folder: Path) -> list[Path]:
    """Return workbooks as LibreOffice writes them after it has calculated every formula."""
    profile = folder / "profile" / "user"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "registrymodifications.xcu").write_text(RECALCULATE, encoding="utf-8")
    found = folder / "recalculated"
    call = [str(PROGRAM), f"-env:UserInstallation={profile.parent.as_uri()}", "--headless", "--convert-to",
            "xlsx:Calc MS Excel 2007 XML", "--outdir", str(found), *map(str, files)]  # fmt: skip
    subprocess.run(call, check=True, capture_output=True, timeout=30 + 60 * len(files))
    return [found / f.name for f in files]


def names_of(workbook: Path) -> dict[str, str]:
    """Return the sheet and cell of every defined name."""
    with zipfile.ZipFile(workbook) as source:
        text = source.read("xl/workbook.xml").decode()
    return dict(re.findall(r'<definedName name="([^"]+)">([^<]*)</definedName>', text))


def edited(workbook: Path, target: Path, inputs: Mapping[str, Any], names: Mapping[str, str]) -> Path:
    """Return a copy of a workbook with other inputs, as somebody would type them; the values of formulas stay old."""
    with zipfile.ZipFile(workbook) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in source.namelist():
            content = source.read(name)
            if name == "xl/worksheets/sheet1.xml":
                text = content.decode()
                for column, value in inputs.items():
                    text = _typed(text, names[column].rpartition("!")[2].replace("$", ""), value)
                content = text.encode()
            copy.writestr(name, content)
    return target


def _typed(sheet: str, cell: str, value: object) -> str:
    kind, body = ' t="inlineStr"', f"<is><t>{escape(str(value))}</t></is>"
    if isinstance(value, int | float):
        kind, body = "", f"<v>{value}</v>"
    found = re.search(rf'<c r="{cell}"( s="\d+")?( t="\w+")?>.*?</c>', sheet)
    assert found, cell
    return sheet.replace(found.group(0), f'<c r="{cell}"{found.group(1) or ""}{kind}>{body}</c>')


def rows_of(workbook: Path, sheet: str) -> list[tuple[Any, ...]]:
    """Return the values of a sheet's cells, unknown as None."""
    page = openpyxl.load_workbook(workbook, data_only=True, read_only=True)[sheet]
    return [tuple(None if v == "#N/A" else v for v in row) for row in page.iter_rows(values_only=True)]
