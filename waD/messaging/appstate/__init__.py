"""App state ("syncd") of one session, receiving: collections, their keys, and when they are fetched (chapter 05 §4)."""
