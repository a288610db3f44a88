"""The API of DJL Serving, as clients of 0.13 (the published page) to 0.36 know it.

Milliseconds become seconds here, at the door.  A registered model is a workflow
of one node, so both collections show it.
"""

from stoker.frontend.dialects.djl.dialect import Djl

DIALECT = Djl

__all__ = ["DIALECT", "Djl"]
