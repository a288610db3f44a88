"""Which models `load_models` means when the server starts.

Source: contracts/torchserve.md 9.4, 6.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from stoker.errors import SettingsError

#: Endings of what `all` takes from the model store, beside folders.
_ENDINGS: Final = (".mar", ".model", ".tar.gz")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_]")


class StartupModel(NamedTuple):
    """One registration of the start.

    Attributes:
        model: The name if the list gave one (`name=location`).
        default_model: The name if neither list nor manifest has one.
    """

    url: str
    model: str | None
    default_model: str

    @property
    def key(self) -> str:
        """Names this item among the items of one start and of the next."""
        return f"{self.model or ''}={self.url}"


def startup_names(model_store: Path | None, load_models: Sequence[str]) -> list[StartupModel]:
    """Expand `load_models` in order; `all` stands for everything in the store, by name.

    A location that turns up twice is taken once; which of them exist is for
    `resolve` to find, one by one, so that one bad entry stops no other.

    Raises:
        SettingsError: `all` without a readable model store.
    """
    found: dict[tuple[str | None, str], StartupModel] = {}
    for item in load_models:
        text = item.strip()
        if text.lower() == "all":
            for url in _everything(model_store):
                found.setdefault((None, url), StartupModel(url, None, name_from_url(url)))
        elif text and text.lower() != "none":
            name, is_named, location = text.partition("=")
            # A remote address may hold a `=` of its own.
            if not is_named or "/" in name:
                name, location = "", text
            model, url = name.strip() or None, location.strip()
            found.setdefault((model, url), StartupModel(url, model, name_from_url(url)))
    return list(found.values())


def name_from_url(url: str) -> str:
    """A model name from the last part of a location: no ending, nothing but word characters.

    The peer maps strange characters, and a leading `_`, to `_`; a name of ours
    starts with a letter or digit, so leading ones are dropped.
    """
    name = re.split(r"[/\\]", url.partition("?")[0].rstrip("/"))[-1]
    for ending in (".tar.gz", ".tgz"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    else:
        stem, dot, _ = name.rpartition(".")
        name = stem if dot and stem else name
    return _STRANGE.sub("_", name).lstrip("_") or "model"


def _everything(model_store: Path | None) -> list[str]:
    if model_store is None:
        raise SettingsError(
            "load_models is `all`, but no model_store is set", setting="load_models"
        )
    try:
        entries = sorted(model_store.iterdir())
    except OSError as error:
        raise SettingsError(
            f"the model store cannot be read: {error.strerror}", setting="model_store"
        ) from None
    return [
        entry.name
        for entry in entries
        if not entry.name.startswith(".") and (entry.is_dir() or entry.name.endswith(_ENDINGS))
    ]
