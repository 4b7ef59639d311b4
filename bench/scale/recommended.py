"""What deploy/ is to say. A test holds the manifests against it, and docs/scaling.md shows it."""

from __future__ import annotations

from typing import Final

from bench.scale.scaler import Direction, Rules

PROCESSORS: Final = 2
"""Processors of a replica, which are its workers."""
TARGET: Final = 0.55
"""Workers in demand by workers there are."""
PROCESSOR_TARGET: Final = 0.50
"""Processor time used by what there is, where nothing better is measured."""
RULES: Final = Rules(
    least=3,
    most=30,
    up=Direction(percent=100, pods=4, period=15, window=0),
    down=Direction(percent=10, pods=1, period=60, window=300),
)
BACKLOG: Final = 120
"""Seconds that the workers of jobs may need for what is due."""
WORKERS: Final = Rules(
    least=1,
    most=20,
    up=Direction(percent=100, pods=4, period=30, window=0),
    down=Direction(percent=25, pods=1, period=60, window=300),
)
