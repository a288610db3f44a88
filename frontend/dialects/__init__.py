"""One module or folder per API that clients know, under the name that settings use.

Nothing else lists them: a module here with `DIALECT` in it is a dialect, and a
listener may speak it (`stoker.settings.listeners` looks at the names).  `shared`
holds what several of them have in common.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from stoker.errors import SettingsError

if TYPE_CHECKING:
    from stoker.frontend.dialect import Dialect


def load_dialect(name: str) -> type[Dialect]:
    """The dialect of that name; settings have seen to it that there is such a module.

    Raises:
        SettingsError: There is no dialect in it.
    """
    module = importlib.import_module(f"{__name__}.{name}")
    dialect: type[Dialect] | None = getattr(module, "DIALECT", None)
    if dialect is None:
        raise SettingsError(
            f"{module.__name__} is no dialect: it has no DIALECT", setting="dialect"
        )
    return dialect
