"""A model's configuration by its name on the Hugging Face hub, where network and ``huggingface_hub`` are there."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

from calc.errors import CalcError

INSTALL = "pip install -r calc/importers/requirements.txt"


def download(name: str) -> Path:
    """Return a folder with the configuration of a hub model, and its safetensors index where it has one.

    Raises CalcError where there is no such file here, no package, no network or no such model.
    """
    if not _is_hub_name(name):
        raise CalcError(f"{name!r}: there is no such file, and it is no name on the hub (OWNER/MODEL)")
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CalcError(f"{name!r}: there is no such file; to fetch it from the hub, {INSTALL}") from error
    try:
        # asked once: the download itself tries again for half a minute where there is no network
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=10)
        is_reached = True
    except HfHubHTTPError:
        is_reached = True
    except Exception:  # whatever the client underneath raises
        is_reached = False
    try:
        fetch = partial(hf_hub_download, name, etag_timeout=10, local_files_only=not is_reached)
        config = Path(fetch(filename="config.json"))
    except LocalEntryNotFoundError as error:
        raise CalcError(f"{name!r}: the hub cannot be reached; download config.json and import the file") from error
    except EntryNotFoundError as error:
        raise CalcError(f"{name!r}: has no config.json on the hub") from error
    except HfHubHTTPError as error:
        reason = "is gated or unknown" if error.response.status_code in (401, 403, 404) else str(error).splitlines()[0]
        raise CalcError(f"{name!r}: {reason} on the hub; download config.json and import the file") from error
    except (OSError, ValueError) as error:
        raise CalcError(f"{name!r}: cannot be fetched from the hub ({str(error).splitlines()[0]})") from error
    # small models have no index
    with contextlib.suppress(EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        fetch(filename="model.safetensors.index.json")
    return config.parent


def _is_hub_name(name: str) -> bool:
    owner, _, model = name.partition("/")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    return bool(owner) and bool(model) and len(name) < 200 and set(owner + model) <= allowed and owner[0] != "."
