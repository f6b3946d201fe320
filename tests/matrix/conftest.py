"""One test for each row of the matrix, from the catalog: a quick set of them, or with `-m whole` every one."""

from __future__ import annotations

import pytest

QUICK = ("bert", "gpt2", "t5", "vit", "clip", "wav2vec2", "mobilevit", "patchtst", "llava", "mixtral", "vision-t5")
"""A model of each kind; they take about two minutes on two processors."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: a row of the matrix beyond the quick set; run with -m whole")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" not in metafunc.fixturenames:
        return
    from engine.matrix.catalog import entries

    rows = entries() if "whole" in metafunc.config.getoption("markexpr") else entries(QUICK)
    metafunc.parametrize("entry", [pytest.param(row, id=row.name, marks=pytest.mark.whole) for row in rows])
