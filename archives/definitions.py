"""Where a workflow definition of DJL's is: a file, a folder with one, a download, a template.

Source: contracts/djl-serving.md 8.1, 8.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stoker.archives.djl_workflow import (
    MAX_DEFINITION_BYTES,
    SUFFIXES,
    DjlDefinition,
    find_definition,
    parse_definition,
)
from stoker.archives.fetch import FetchRequest, fetched
from stoker.archives.location import LocalDirectory, Remote, locate
from stoker.archives.obtaining import ArchivePlaces
from stoker.errors import InvalidParameter, WorkflowInvalid

#: Below the model store.
TEMPLATES: Final = "workflowTemplates"
_TEMPLATE: Final = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)


def is_definition(url: str) -> bool:
    """Does its ending say so?"""
    return url.partition("?")[0].lower().endswith(SUFFIXES)


def locate_definition(url: str, places: ArchivePlaces) -> Path | None:
    """The file; None when it must be fetched.

    Raises:
        ArchiveError: There is none.
        WorkflowInvalid: A folder without one.
    """
    location = locate(url, places.model_store, places.allowed_urls)
    if isinstance(location, Remote):
        return None
    if isinstance(location, LocalDirectory):
        found = find_definition(location.path)
        if found is None:
            raise WorkflowInvalid("The folder holds no workflow definition.", url=url)
        return found
    return location.path


def find_template(name: str, model_store: Path | None) -> Path:
    """Raises InvalidParameter: There is none of that name."""
    if model_store is not None and _TEMPLATE.fullmatch(name):
        path = model_store / TEMPLATES / f"{name}.json"
        if path.is_file():
            return path
    raise InvalidParameter(f"The workflow template {name} could not be found", parameter="template")


def fetch_definition(
    url: str,
    places: ArchivePlaces,
    parameters: Mapping[str, str],
    should_stop: Callable[[], bool],
) -> tuple[DjlDefinition, Path]:
    """Download and read one; it stands in a folder where nothing is.

    Raises:
        ArchiveError, WorkflowInvalid, GraphInvalid.
    """
    location = locate(url, places.model_store, places.allowed_urls)
    assert isinstance(location, Remote)
    wanted = FetchRequest(location.url, url, places.allowed_urls, None)
    with (
        fetched(
            wanted,
            places.downloads_dir,
            places.fetch_limits,
            progress=lambda done, total: None,
            should_stop=should_stop,
        ) as download,
        download.path.open("rb") as file,
    ):
        text = file.read(MAX_DEFINITION_BYTES + 1)
    folder = places.downloads_dir / Path(urlsplit(location.url).path).stem
    return parse_definition(text, url, str(folder), parameters), folder
