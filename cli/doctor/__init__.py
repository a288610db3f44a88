"""`stoker doctor`: what of a TorchServe installation will work here.

Nothing of the installation is executed or imported, and nothing is written
to it.  Archives are unpacked as a server would unpack them, under the same
limits, into a temporary folder; their code is only parsed, in a process of its
own (`source`).
"""
