"""What diagnostics say of the last seconds; the node's own are in test_node_operation.py."""

from mppe_ros.diagnostics import Diagnostics, Situation, Stats

ACTIVE = Situation(state="active", watched=True)


def process(stats: Stats, images: int, **stage_ms: float) -> None:
    for _ in range(images):
        stats.spend(stage_ms)
        stats.received += 1
        stats.processed += 1


def test_times_of_stages_are_means_over_the_last_seconds() -> None:
    stats, diagnostics = Stats(), Diagnostics(now_s=0.0)
    process(stats, 1, detect=10.0, estimate=20.0)
    process(stats, 4, detect=0.0, estimate=20.0)
    values = diagnostics.report(1.0, stats, ACTIVE).values
    assert values["detect (ms)"] == "2.0" and values["estimate (ms)"] == "20.0"
    process(stats, 5, estimate=40.0, track=1.0)
    values = diagnostics.report(2.0, stats, ACTIVE).values
    assert values["detect (ms)"] == "1.0" and values["estimate (ms)"] == "30.0"
    assert values["track (ms)"] == "0.5"

    process(stats, 2, detect=0.0, estimate=7.0)  # what was before is forgotten
    for second in range(3, 8):
        values = diagnostics.report(float(second), stats, ACTIVE).values
    assert values["detect (ms)"] == "0.0" and values["estimate (ms)"] == "7.0"


def test_without_images_no_stage_takes_time() -> None:
    stats, diagnostics = Stats(), Diagnostics(now_s=0.0)
    assert not [key for key in diagnostics.report(1.0, stats, ACTIVE).values if "detect (" in key]
    process(stats, 3, detect=5.0)
    for second in range(2, 12):
        values = diagnostics.report(float(second), stats, ACTIVE).values
    assert values["detect (ms)"] == "0.0"
