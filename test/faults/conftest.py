"""How long the next good image took after each fault: printed at the end (`make faults`)."""

import statistics

import pytest

ANSWERS_S: dict[str, float] = {}


@pytest.fixture
def note_answer(request):
    """Keeps how long a test's good image took, s."""
    return lambda seconds: ANSWERS_S.__setitem__(request.node.name, seconds)


def pytest_terminal_summary(terminalreporter):
    if not ANSWERS_S:
        return
    ranked = sorted(ANSWERS_S.items(), key=lambda item: item[1])
    times_ms = [1000 * seconds for _, seconds in ranked]
    quantiles = statistics.quantiles(times_ms, n=100) if len(times_ms) > 1 else times_ms * 99
    late = sum(ms > 1000 for ms in times_ms)
    terminalreporter.section("time from a fault to the next answer")
    terminalreporter.write_line(
        f"{len(ranked)} faults: median {quantiles[49]:.0f} ms, 95 % within {quantiles[94]:.0f} ms,"
        f" longest {times_ms[-1]:.0f} ms ({ranked[-1][0]}); later than 1 s: {late}"
    )
