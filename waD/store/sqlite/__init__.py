"""The store on SQLite: the embedded default, which needs no set-up."""
