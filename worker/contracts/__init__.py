"""What an archive may expect of the worker that loads it."""
