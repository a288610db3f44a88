"""Where the peer kept its wire format; one helper of it is used by handlers."""
