"""Tests of the end-to-end room."""
