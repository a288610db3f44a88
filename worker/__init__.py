"""One process, one version, one handler: the only place user code runs."""
