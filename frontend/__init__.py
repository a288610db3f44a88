"""HTTP in, wire out: stateless, may be restarted at any time."""
