"""What several dialects have in common; each takes what its peer has, too."""
