"""Auth states of Baileys, from every store that is known to hold them, and out again (chapter 08 §2, §3)."""

from waD.transfer.baileys.convert import convert
from waD.transfer.baileys.directory import read_directory
from waD.transfer.baileys.dumps import read_dump
from waD.transfer.baileys.opening import read_source
from waD.transfer.baileys.presets import PRESETS, Preset, Table
from waD.transfer.baileys.source import BaileysItems, combine
from waD.transfer.sources.errors import SourceRefused

__all__ = [
    "PRESETS",
    "BaileysItems",
    "Preset",
    "SourceRefused",
    "Table",
    "combine",
    "convert",
    "read_directory",
    "read_dump",
    "read_source",
]
