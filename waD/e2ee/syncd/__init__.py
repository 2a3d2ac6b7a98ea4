"""App state ("syncd"): keys, mutations, hashes, patches and snapshots of the five collections (chapter 05 §4).

Sans-IO. Nothing of a patch comes out of here before all of it passed its checks.
"""
