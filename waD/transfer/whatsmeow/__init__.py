"""Auth states of whatsmeow: neonize, wuzapi, GOWA, mautrix-whatsapp, Evolution Go, WAHA GOWS (chapter 08 §4).

`import_device` does all; `open_source`, `list_devices`, `choose_device`, `read_device` and `convert` are its steps.
Sources are only read.
"""

from __future__ import annotations

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.whatsmeow.convert import convert, import_device, open_source
from waD.transfer.whatsmeow.rows import Device, DeviceRows, choose_device, list_devices, read_device

__all__ = [
    "Device",
    "DeviceRows",
    "SourceRefused",
    "choose_device",
    "convert",
    "import_device",
    "list_devices",
    "open_source",
    "read_device",
]
