"""How the processes talk: the only place that knows bytes."""
