"""The Multi Model Server API, as clients of MMS 1.1 know it.

There are no versions here: what another listener registered beside the default
version is neither described nor scaled, but unregistering takes all of it away.
"""

from typing import Final

from stoker.frontend.dialects.mms.dialect import Mms

DIALECT: Final = Mms

__all__ = ["DIALECT", "Mms"]
