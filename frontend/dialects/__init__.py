"""One module or folder per API that clients know, under the name that settings use.

Nothing else lists them: a module here with `DIALECT` in it is a dialect, and a
listener may speak it (`stoker.settings.listeners` looks at the names).  `shared`
holds what several of them have in common.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoker.frontend.dialect import Dialect


def load_dialect(name: str) -> type[Dialect]:
    """The dialect of that name; settings have seen to it that there is one."""
    module = importlib.import_module(f"{__name__}.{name}")
    dialect: type[Dialect] = module.DIALECT
    return dialect
