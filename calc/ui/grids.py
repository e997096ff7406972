"""The grid that the dashboard asks: the one that CALC_GRID names, else the grid ``demo``, which it builds itself."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from threading import Timer

import streamlit as st

import calc
from calc.grid.dataset import Dataset
from calc.tables import ROOT

FOLDER = "CALC_GRID"
"""Environment variable: the grid to ask; without it the dashboard builds the grid ``demo``."""
QUIET_S = 5
"""How long a first visitor's browser has the machine for itself."""


@st.cache_resource(show_spinner=False)
def start() -> None:
    """Begin to build the demo grid soon, once for the server, unless a grid is named; the pages go on meanwhile."""
    if not os.environ.get(FOLDER):
        later = Timer(QUIET_S, _building, [str(_demo())])
        later.daemon = True
        later.start()


def folder() -> Path:
    """Return the grid's folder, once it is there. Raises CalcError for one that is none, or cannot be built."""
    named = os.environ.get(FOLDER)
    if named:
        Dataset(named).read()
        return Path(named).resolve()
    _built(str(_demo()))
    return _demo()


@lru_cache(maxsize=1)
def _building(folder: str) -> subprocess.Popen[bytes]:
    """Return the process that builds the grid ``demo``: it takes none of the time in which pages are drawn."""
    command = [sys.executable, "-m", "calc", "grid", "demo", "--out", folder]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@st.cache_resource(show_spinner="Building the demo grid: some seconds, once")
def _built(folder: str) -> bool:
    _building(folder).wait()
    # nothing is left to build, unless that process failed: then this says why
    calc.build_grid("demo", folder)
    return True


def _demo() -> Path:
    """Return the place of the dashboard's own grid: where this user's programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-calculator" / "demo"
