"""What handlers count and time."""
