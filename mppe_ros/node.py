"""The pose node (``ros2 run mppe_ros pose_node``): a camera's images in, skeletons out.

It only wires, and follows its lifecycle: callbacks store the newest frame, a worker thread
processes it and publishes. What is computed lives in modules that know no node.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool, Trigger

from . import executables, parameters
from .conversions import message_from_record
from .devices import is_device_lost, release_memory
from .diagnostics import REPORT_PERIOD_S, Diagnostics, Situation, Stats
from .frames import FrameError, TransformLookup
from .image_messages import ConversionError
from .outputs import Outputs
from .pipeline import Pipeline
from .processing import Fusion, Processor, Seen, Tracks
from .records import INTRINSICS_ASSUMED, present
from .structures import IntrinsicsError
from .subscriptions import CameraSubscriptions, image_topic
from .synchronisation import Frame, message_time_ns
from .throttle import Throttle
from .worker import Worker

NODE_NAME = "mppe"

# A job that takes longer is left behind when the node ends or is cleaned up.
_STOP_TIMEOUT_S = 1.0
_REPEAT_S = 10.0  # the same complaint comes no more often
_LONGEST_TEXT = 1000  # characters of a complaint


class PoseNode(LifecycleNode):
    """Publishes ``~/poses`` and ``~/markers`` for every image that it gets around to."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        parameters.declare(self)
        self.settings = parameters.read(self)
        self.stats = Stats()
        self._processor: Processor | None = None  # from configure to cleanup
        self._lookup: TransformLookup | None = None  # as long, if a frame needs it
        self._ids = itertools.count(1)  # none comes twice in the node's life
        self._camera: CameraSubscriptions | None = None  # from activate to deactivate
        self._enabled = True
        self._problem = ""  # why the last transition failed
        self._device_lost = False  # and the networks have to be loaded anew
        self._makeshift = ""  # how the device that was asked for is done without
        self._throttle = Throttle(_REPEAT_S)
        self._outputs = Outputs(self)
        # One thread for the node's life: a slow image cannot end up beside the next session's.
        self._worker = Worker(self._process, self._report_failure, name="inference")
        self._apply()
        self.add_post_set_parameters_callback(self._apply)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset_tracks", self._on_reset_tracks)
        self._start_diagnostics()

    def _start_diagnostics(self) -> None:
        self._diagnostics = Diagnostics(time.monotonic())
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A silent camera may mean a silent /clock too, so this timer has a clock of its own.
        self.create_timer(
            REPORT_PERIOD_S,
            self._watch,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    # --- lifecycle ---

    def start(self) -> bool:
        """Configures and activates; false, and unconfigured, if that failed."""
        transitions = self.trigger_configure, self.trigger_activate
        return all(trigger() == TransitionCallbackReturn.SUCCESS for trigger in transitions)

    def close(self) -> bool:
        """Ends in order; false if the worker is still busy and had to be left behind."""
        self._deactivate()
        stopped = self._worker.stop(_STOP_TIMEOUT_S)
        if self.context.ok():
            self._outputs.flush()
        self.destroy_node()
        return stopped

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("configure", self._load)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("activate", self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("clean up", self._unload)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.on_error(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Whatever failed, and however far it came: back to the beginning."""
        self._deactivate()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        """Says why a step failed; rclpy would not."""
        self._problem = ""
        try:
            step()
        except Exception as error:
            self._problem = f"cannot {what}: {error}"
            self.get_logger().error(self._problem)
            self.get_logger().debug("".join(traceback.format_exception(error)))
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _load(self) -> None:
        settings = self.settings
        if settings.output_frame or settings.tracking_frame:
            self._lookup = TransformLookup(self)
        self._device_lost, self._makeshift = False, ""
        self._load_networks(settings.device)

    def _load_networks(self, device: str) -> None:
        settings = self.settings
        self.get_logger().info(f"loading weights {settings.weights}")
        started_s = time.monotonic()
        pipeline = Pipeline.load(
            settings.weights,
            device=device,
            precision=settings.precision,
            backend=settings.backend,
            detector=settings.detector,
            detector_size=settings.detector_size or None,
            options=settings.pipeline_options,
        )
        self._processor = Processor(pipeline, settings, self._lookup, self._ids)
        self.get_logger().info(
            f"loaded in {time.monotonic() - started_s:.1f} s: "
            + ", ".join(f"{name} {value}" for name, value in _describe(pipeline).items())
        )

    def _replace_device(self) -> None:
        """Networks whose device was lost are loaded anew: there, or where any will do on the CPU.

        A GPU's fault may spoil it for the rest of this process.
        """
        self._device_lost = False
        for device in dict.fromkeys([self.settings.device, "cpu"]):
            if device != self.settings.device and self.settings.device != "auto":
                break
            try:
                self._load_networks(device)
            except Exception as error:
                self._complain(f"networks cannot be loaded anew on device {device}: {error}")
                continue
            if device != self.settings.device:
                self._makeshift = "the GPU was lost, the CPU is slower: restart the node"
            return

    def _unload(self) -> None:
        if not self._worker.wait_idle(_STOP_TIMEOUT_S):
            self.get_logger().warning("memory is freed later: an image is still being processed")
        if self._lookup is not None:
            self._lookup.close()
        self._processor = self._lookup = None
        release_memory()

    def _activate(self) -> None:
        self._camera = CameraSubscriptions(self, self.settings, self.stats, self._take)
        self._open_or_close_outputs()
        outputs = ", ".join(self._outputs.topics)
        self.get_logger().info(
            f"listening on {self._camera.image_topic} and {self._camera.info_topic}, "
            f"publishing {outputs}"
        )

    def _deactivate(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None
        self._open_or_close_outputs()

    def _open_or_close_outputs(self) -> None:
        if self._camera and self._enabled and self._processor:
            self._processor.reset()
            self._outputs.open(self._processor.pipeline)
        else:
            self.stats.paused += self._worker.discard()
            if self.context.ok():
                self._outputs.close()

    @property
    def _state(self) -> str:
        if self._processor is None:
            return "unconfigured"
        return "inactive" if self._camera is None else "active"

    # --- callbacks of the executor's thread ---

    def _apply(self, _: Sequence[RosParameter] = ()) -> None:
        """Puts the live parameters into effect."""
        self.settings = parameters.read(self)
        self._worker.set_min_period(self.settings.min_period_s)

    def _take(self, frame: Frame) -> None:
        if not self._outputs.wanted:
            self.stats.idle += 1
        elif frame.camera_info is None and not self.settings.assumed_fov_deg:
            self.stats.without_camera += 1
        else:
            self.stats.replaced += self._worker.put(frame)

    def _on_enable(self, request: Any, response: Any) -> Any:
        if request.data != self._enabled:
            self._enabled = request.data
            self._open_or_close_outputs()
        response.success = True
        response.message = f"processing is {'on' if self._enabled else 'off'} ({self._state})"
        return response

    def _on_reset_tracks(self, _: Any, response: Any) -> Any:
        response.success = self._outputs.reset_markers()
        processor = self._processor
        if not response.success or processor is None:
            response.message = f"nothing to reset: not processing ({self._state})"
        elif processor.tracking:
            processor.reset()
            response.message = "people get new ids with the next image; markers are deleted"
        else:
            response.message = "markers are deleted; people have no ids, tracking is off"
        return response

    def _watch(self) -> None:
        """Reports on /diagnostics, and a silent camera in the log too."""
        if self._device_lost and self._processor:
            self._replace_device()
        camera, processor = self._camera, self._processor
        situation = Situation(
            state=self._state,
            problem=self._problem,
            enabled=self._enabled,
            watched=self._outputs.wanted,
            silence=camera.silence if camera else "",
            doubt=camera.doubt if camera else "",
            values=_describe(processor.pipeline) if processor else {},
        )
        for text in filter(None, (situation.silence, situation.doubt)):
            self._warn(text)
        report = self._diagnostics.report(time.monotonic(), self.stats, situation)
        record = report.record(
            name=f"{self.get_fully_qualified_name()}: people",
            hardware_id=image_topic(self, self.settings),
            stamp=self.get_clock().now().seconds_nanoseconds(),
        )
        self._diagnostics_publisher.publish(message_from_record(DiagnosticArray, record))

    # --- the worker's thread ---

    def _process(self, frame: Frame) -> None:
        processor, session, settings = self._processor, self._outputs.session, self.settings
        if processor is None:
            self.stats.late += 1
            return
        if self._too_old(frame):
            self.stats.too_old += 1
            return
        seen = processor(frame, settings)
        started_s = time.perf_counter()
        if self._worker.stopping or not self._outputs.publish(session, seen, settings):
            self.stats.late += 1
            return
        self._note(frame, seen, (time.perf_counter() - started_s) * 1e3)

    def _note(self, frame: Frame, seen: Seen, publish_ms: float) -> None:
        assumed = seen.record["intrinsics_source"] == INTRINSICS_ASSUMED
        self.stats.people = len(present(seen.record))
        self.stats.complaint = ""
        if complaint := self._makeshift or seen.complaint:
            self._complain(complaint)
        self.stats.age_ms = self._age_s(frame) * 1e3
        self.stats.spend({**seen.stage_ms, "publish": publish_ms})
        self.stats.intrinsics = "assumed" if assumed else "calibrated"
        if seen.fusion is not None:
            self._note_fusion(seen.fusion)
        if seen.tracks is not None:
            self._note_tracks(seen.tracks)
        self.stats.detector_runs += seen.detected
        self.stats.processed += 1

    def _note_fusion(self, fusion: Fusion) -> None:
        self.stats.depth = f"{fusion.corrected} of {len(fusion.people)} people corrected"
        if fusion.complaint:
            topic = self.resolve_topic_name("depth")
            self._complain(f"depth on {topic} is of no use: {fusion.complaint}")

    def _note_tracks(self, tracks: Tracks) -> None:
        self.stats.tracks = tracks.people
        if tracks.notice and self._throttle.allows(tracks.notice):
            self.get_logger().info(f"{tracks.notice}: people get new ids")
        if tracks.complaint:
            self._complain(tracks.complaint)

    def _complain(self, text: str) -> None:
        self.stats.complaint = text
        self._warn(text)

    def _age_s(self, frame: Frame) -> float:
        # In whole numbers: rclpy's Time refuses stamps that a broken driver may send.
        return (self.get_clock().now().nanoseconds - message_time_ns(frame.image)) * 1e-9

    def _too_old(self, frame: Frame) -> bool:
        limit_s = self.settings.max_image_age
        age_s = self._age_s(frame) if limit_s else 0.0
        if age_s > limit_s:
            self._warn(
                f"images on {image_topic(self, self.settings)} are dropped as older than "
                f"max_image_age: {age_s:.2f} s > {limit_s:g} s; do the clocks agree, is "
                "use_sim_time right?"
            )
        return age_s > limit_s

    def _report_failure(self, _: Frame, error: Exception) -> None:
        self.stats.failed += 1
        image = f"image on {image_topic(self, self.settings)}"
        if isinstance(error, IntrinsicsError):
            info = self.resolve_topic_name("camera_info")
            text = f"camera_info on {info} is of no use: {error}"
        elif isinstance(error, FrameError):
            text = f"people of {image} have no place in output_frame: {error}"
        elif isinstance(error, ConversionError):
            text = f"{image} is of no use: {error}"
        else:
            text = f"{image} failed: {type(error).__name__}: {error}"
            self.get_logger().debug("".join(traceback.format_exception(error)))
        text = _shortened(text)
        self._device_lost |= is_device_lost(error)
        self.stats.error = text
        if not self._worker.stopping and self._throttle.allows(text):
            self.get_logger().error(text)

    def _warn(self, text: str) -> None:
        if self._throttle.allows(text):
            self.get_logger().warning(text)


def _shortened(text: str) -> str:
    """What a message contains may be of any length."""
    half = _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[:half]} … {text[-half:]}"


def _describe(pipeline: Pipeline) -> dict[str, str]:
    """What diagnostics say about it."""
    return {
        "weights": pipeline.model,
        "skeleton": pipeline.skeleton.name,
        "device": str(pipeline.device),
        "precision": str(pipeline.precision).removeprefix("torch."),
    }


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; 0, or 1 if it could not start.

    Leaves a job behind that takes too long, so the process must end by ``os._exit``.
    """
    return executables.run(NODE_NAME, PoseNode, _work, PoseNode.close, args)


def _work(node: PoseNode) -> int:
    if node.settings.autostart and not node.start():
        return 1  # nobody is there to try again: who started this shall know
    executables.spin(node)
    return 0
