"""In which order tests run, and what they say at their end."""

import sys

# A signal to a process crashed it where rclpy, Fast DDS and OpenVINO had left threads before.
FIRST = ("test_training.py", "test_training_reference.py", "test_run.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_terminal_summary(terminalreporter):
    fuzz = sys.modules.get("test_fuzz")
    if fuzz and fuzz.TRIED:
        count = sum(fuzz.TRIED.values())
        terminalreporter.write_line(f"fuzz: {count} inputs in {len(fuzz.TRIED)} tests")
