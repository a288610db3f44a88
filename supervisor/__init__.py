"""Owns queues, batches and worker processes; never sees a payload."""
