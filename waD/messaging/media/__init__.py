"""Media files of WhatsApp's media hosts: where they are, how they are fetched (chapter 05 §1)."""
