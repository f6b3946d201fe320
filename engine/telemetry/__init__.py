"""Figures: counted (`metrics`, `gauges`), exported (`prometheus`, `exporter`, `otel`), shown and logged.

All but `progress` and `log`, which belong to runs, work for any engine, and need only the core.
"""

from __future__ import annotations

import logging

# Without a handler here, logging would print warnings to the standard error of programs that use the library.
logging.getLogger("engine").addHandler(logging.NullHandler())
