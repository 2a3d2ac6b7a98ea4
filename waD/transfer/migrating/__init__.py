"""Moving sessions here from other programs, away to one of them, and between stores (chapter 08 §2.9, §4.4, §6.4)."""
