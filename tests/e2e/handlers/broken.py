"""Cannot be imported."""

raise ValueError("the weights are missing")
