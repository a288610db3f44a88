"""`djl_python`: stoker's own Input and Output under the names archives know."""

from stoker.worker.djl.inputs import Input
from stoker.worker.djl.outputs import Output
from stoker.worker.djl.pair_list import PairList
from stoker.worker.djl.sessions import Session, SessionManager

__all__ = ["Input", "Output", "PairList", "Session", "SessionManager"]
