"""What is counted, shown and logged. `metrics` needs only the core; `progress` and `log` belong to runs."""

from __future__ import annotations

import logging

# Without a handler of its own, logging would print warnings to the standard error of programs that use the library.
logging.getLogger("engine").addHandler(logging.NullHandler())
