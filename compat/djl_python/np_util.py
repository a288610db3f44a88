"""`djl_python.np_util`, as archives import it."""

from stoker.worker.djl.tensors import read_ndlist as from_nd_list
from stoker.worker.djl.tensors import read_npz as from_npz
from stoker.worker.djl.tensors import write_ndlist as to_nd_list
from stoker.worker.djl.tensors import write_npz as to_npz

__all__ = ["from_nd_list", "from_npz", "to_nd_list", "to_npz"]
