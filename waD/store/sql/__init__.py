"""The store in SQL that SQLite and PostgreSQL both understand (chapter 08 §6)."""
