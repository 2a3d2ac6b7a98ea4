"""Auth states in and out: verifying, backup and restore, import from other systems and export to them (chapter 08)."""
