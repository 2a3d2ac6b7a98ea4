"""Foreign clients against the sandbox."""
