"""What the importers share: opening other programs' stores to read only, and putting Signal state together."""
