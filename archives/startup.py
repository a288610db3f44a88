"""Which models `load_models` means when the server starts.

Source: contracts/torchserve.md 9.4, 6.2; contracts/djl-serving.md 9.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from stoker.archives.location import THE_STORE
from stoker.errors import SettingsError

#: Endings of what `all` takes from the model store, beside folders.
_ENDINGS: Final = (".mar", ".model", ".tar.gz")
_DJL_ENDINGS: Final = (".zip", ".mar", ".tar", ".tar.gz", ".tgz", ".tar.z")
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_]")


class StartupModel(NamedTuple):
    """One registration of the start.

    Attributes:
        model: The name if the list gave one (`name=location`).
        default_model: The name if neither list nor manifest has one.
        version, engine, devices: As the list gives them; "" for nothing.
    """

    url: str
    model: str | None
    default_model: str
    version: str = ""
    engine: str = ""
    devices: str = ""

    @property
    def key(self) -> str:
        """Names this item among the items of one start and of the next."""
        details = ":".join((self.version, self.engine, self.devices)).rstrip(":")
        return f"{self.model or ''}{details and ':'}{details}={self.url}"


def startup_names(model_store: Path | None, load_models: Sequence[str]) -> list[StartupModel]:
    """Expand `load_models` in order; `all` stands for everything in the store, by name.

    An item is a location, `name=location`, or DJL Serving's
    `[name:version:engine:devices]=location`, whose brackets and last parts may be
    left out.  A location that turns up twice is taken once; which of them exist is
    for `resolve` to find, one by one, so that one bad entry stops no other.

    Raises:
        SettingsError: `all` without a readable model store.
    """
    found: dict[str, StartupModel] = {}
    for item in load_models:
        text = item.strip()
        if text.lower() == "all":
            for url in _everything(model_store):
                model = StartupModel(url, None, name_from_url(url))
                found.setdefault(model.key, model)
        elif text and text.lower() != "none":
            model = _item(text)
            found.setdefault(model.key, model)
    return list(found.values())


def _item(text: str) -> StartupModel:
    head, is_named, location = text.partition("=")
    # A remote address may hold a `=` of its own.
    if not is_named or "/" in head:
        head, location = "", text
    head = head.strip()
    if head.startswith("[") and head.endswith("]"):
        head = head[1:-1]
    name, version, engine, devices = (part.strip() for part in f"{head}:::".split(":", 3))
    url = location.strip()
    return StartupModel(url, name or None, name_from_url(url), version, engine, devices.strip(": "))


def djl_items(model_store: Path) -> list[str]:
    """What DJL Serving takes from a store for `ALL`, as items of `load_models`.

    Every entry, if all of them are folders or archives; else the store itself is
    the one model.  Hidden and empty entries do not count.

    Raises:
        OSError: The store cannot be read.
    """
    entries = sorted(entry for entry in model_store.iterdir() if not entry.name.startswith("."))
    entries = [entry for entry in entries if not entry.is_dir() or any(entry.iterdir())]
    if entries and not all(
        entry.is_dir() or entry.name.lower().endswith(_DJL_ENDINGS) for entry in entries
    ):
        return [f"{name_from_url(model_store.resolve().name)}={THE_STORE}"]
    return [entry.name for entry in entries]


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
