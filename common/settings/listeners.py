"""Where a server listens, as the settings say it: an address, a dialect, some APIs.

    http://127.0.0.1:9080 mms                       inference and management
    https://10.0.0.5:8443 djl inference+management
    unix:/run/stoker/admin.sock management          in the dialect of `dialect`

Without `listeners` there are the peer's three: `inference_address`,
`management_address` and `metrics_address`.  A dialect is a module or folder
below `stoker.frontend.dialects`; nothing else lists them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from stoker.addresses import Address, parse_address
from stoker.errors import SettingsError
from stoker.settings.names import nearest_name

if TYPE_CHECKING:
    from stoker.settings.record import Settings

APIS: Final = ("inference", "management", "metrics")
#: What a listener serves that names no API.
USUAL_APIS: Final = ("inference", "management")
DEFAULT_DIALECT: Final = "torchserve"
MAX_LISTENERS: Final = 64
_DIALECTS_PACKAGE: Final = "stoker.frontend.dialects"
#: What dialects have in common is none of them.
_NO_DIALECT: Final = "shared"
_KEYS: Final = ("address", "dialect", "apis")


@dataclass(frozen=True, slots=True)
class ListenerSetting:
    """One listener; `setting` is the name of what asks for it."""

    address: Address
    apis: tuple[str, ...]
    dialect: str
    setting: str


@cache
def dialect_names() -> tuple[str, ...]:
    """Every dialect there is, by looking at what lies in their folder: nothing is imported."""
    spec = importlib.util.find_spec(_DIALECTS_PACKAGE)
    found = set()
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for entry in os.scandir(folder):
            name = entry.name.removesuffix(".py")
            is_module = name != entry.name or os.path.isfile(os.path.join(entry, "__init__.py"))
            if is_module and name.isidentifier() and name[0] != "_" and name != _NO_DIALECT:
                found.add(name)
    return tuple(sorted(found))


def check_dialect(name: str) -> str:
    """The name unchanged.  Raises SettingsError when there is no such dialect."""
    names = dialect_names()
    if name not in names:
        near = nearest_name(name, names)
        hint = f"; did you mean {near}?" if near else ""
        raise SettingsError(f"must be one of {', '.join(names)}, not {name[:100]!r}{hint}")
    return name


def read_listener(text: str, dialect: str = DEFAULT_DIALECT) -> ListenerSetting:
    """One item of `listeners`: `ADDRESS [DIALECT] [API+API...]`.

    Args:
        dialect: Where the item names none.

    Raises:
        SettingsError: It cannot be one.
    """
    where, *words = text.split()
    apis: tuple[str, ...] = ()
    named = ""
    for word in words:
        parts = tuple(word.split("+"))
        if not apis and all(part in APIS for part in parts):
            apis = tuple(dict.fromkeys(parts))
        elif not named and word in dialect_names():
            named = word
        else:
            raise SettingsError(_not_understood(word, is_second=bool(apis and named)))
    apis = apis or USUAL_APIS
    return ListenerSetting(parse_address(where, apis[0]), apis, named or dialect, "listeners")


def _not_understood(word: str, *, is_second: bool) -> str:
    names = (*APIS, *dialect_names())
    # Of `a+b` the part that is wrong.
    wrong = next((part for part in word.split("+") if part not in names), word)
    if is_second or wrong in names:
        return f"{wrong!r} says it twice; a listener has one dialect, and its APIs joined with +"
    near = nearest_name(wrong, names)
    hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}."
    return f"{wrong[:100]!r} is neither an API nor a dialect; {hint}"


def listener_text(table: Mapping[str, Any]) -> str:
    """A table of TOML (`address`, `dialect`, `apis`) as an item.  Raises SettingsError."""
    for key in table:
        if key not in _KEYS:
            near = nearest_name(key, _KEYS)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(_KEYS)}."
            raise SettingsError(f"{key} is not a key of a listener; {hint}")
    apis = table.get("apis", [])
    words = [table.get("address"), table.get("dialect", ""), *_list(apis)]
    if not words[0] or not all(isinstance(word, str) for word in words):
        raise SettingsError("a listener needs an address, and its values are texts")
    address, dialect, *names = map(str, words)
    return " ".join(word for word in (address, dialect, "+".join(names)) if word)


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]


def listeners_of(settings: Settings) -> list[ListenerSetting]:
    """Every listener that these settings ask for; equal addresses are not yet one."""
    if settings.listeners:
        return [read_listener(text, settings.dialect) for text in settings.listeners]
    apis = APIS if settings.enable_metrics_api else USUAL_APIS
    return [
        ListenerSetting(
            parse_address(getattr(settings, f"{api}_address"), api),
            (api,),
            settings.dialect,
            f"{api}_address",
        )
        for api in apis
    ]


def listener_names(listeners: Sequence[tuple[str, Sequence[str]]]) -> list[list[str]]:
    """What each listener is called, of which the dialect and the APIs are given.

    The name of an API alone means the first listener that has it to itself,
    else the first that shares it.  Where there are several dialects, `dialect/api`
    means the same within a dialect.
    """
    has_several = len({dialect for dialect, _ in listeners}) > 1
    names: list[list[str]] = [[] for _ in listeners]
    best: dict[str, int] = {}
    for i, (dialect, apis) in enumerate(listeners):
        for api in apis:
            for name in (api, f"{dialect}/{api}") if has_several else (api,):
                if name not in best or len(apis) < len(listeners[best[name]][1]):
                    best[name] = i
    for name, i in best.items():
        names[i].append(name)
    return names
