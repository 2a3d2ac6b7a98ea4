"""Runs files of protocol vectors against our code: `python -m tests.vector_runner DIR`.

The runner knows formats, not values. A format is named by the file's stem and split into kinds; the modules
`*_formats.py` of this package say how one case of a kind is checked.
"""
