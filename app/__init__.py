"""The service: where originals come from, who may run, what is kept. No HTTP parsing here."""

from typing import Final

__version__: Final = "0.1.0"
