"""Scripts that reproduce every published number; see README.md here."""
