"""One file per API that clients know; `by_name` finds them."""
