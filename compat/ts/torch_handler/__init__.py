"""Ready-made handlers under the names archives know."""
