"""All peers, in the order in which they run."""

from __future__ import annotations

from peers.bentoml import BentoMl
from peers.litserve import LitServe
from peers.mlserver import MlServer
from peers.mms import MultiModelServer
from peers.mosec import Mosec
from peers.peer import Peer
from peers.pytriton import PyTriton
from peers.ray_serve import RayServe
from peers.torchserve import TorchServe

PEERS: tuple[Peer, ...] = (
    Mosec(),
    MultiModelServer(),
    TorchServe(),
    LitServe(),
    MlServer(),
    PyTriton(),
    BentoMl(),
    RayServe(),
)
