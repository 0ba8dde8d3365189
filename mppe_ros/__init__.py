# The generated messages (mppe_ros.msg) lie in the built package's folder, this Python in the
# source tree too: extend_path joins all folders of this name on sys.path, so that neither hides
# the other.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

# The Python interface, imported when it is asked for: nodes and messages start without torch.
_INTERFACE = {"Camera": "calibration", "Intrinsics": "structures", "Person": "structures",
              "PoseEstimator": "estimator", "Poses": "estimator"}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _INTERFACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(__import__("importlib").import_module(f"{__name__}.{_INTERFACE[name]}"), name)
