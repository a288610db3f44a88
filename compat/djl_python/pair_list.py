"""`djl_python.pair_list`, as archives import it."""

from stoker.worker.djl.pair_list import PairList

__all__ = ["PairList"]
