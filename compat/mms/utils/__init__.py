"""Small helpers that handlers import."""
