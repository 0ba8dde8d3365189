"""What the tests say at their end."""

import sys


def pytest_terminal_summary(terminalreporter):
    fuzz = sys.modules.get("test_fuzz")
    if fuzz and fuzz.TRIED:
        count = sum(fuzz.TRIED.values())
        terminalreporter.write_line(f"fuzz: {count} inputs in {len(fuzz.TRIED)} tests")
