"""Tests of waD and wactl."""
