"""Live streams: packets in, text out. The engine does the work; this only translates."""

import time
from functools import partial

import triton_python_backend_utils as pb_utils

from asr_triton import bytes_tensor, failure, load, parameters_of, text_outputs, wants_result
from asr_triton.control import Controlled
from asr_triton.metrics import Publisher
from nemotron_asr import StreamingEngine
from nemotron_asr.engine import Request
from nemotron_asr.engine.garbage import spare_what_is_loaded


class TritonPythonModel:
    def initialize(self, args):
        recognizer, settings = load(args)
        self.engine = StreamingEngine(
            recognizer, settings.slots, settings.idle_timeout_s, settings.max_queued_s
        )
        started = time.perf_counter()
        self.engine.warm_up()
        pb_utils.Logger.log_info(
            f"asr_streaming: {recognizer.name} on {recognizer.device}, {settings.dtype}, "
            f"{settings.slots} slots of {self.engine.arena.bytes_per_slot / 2**20:.2f} MiB, "
            f"warm in {time.perf_counter() - started:.1f} s"
        )
        self.no_text = bytes_tensor("TEXT", "")  # most answers: made once, it saves 10 us each
        spare_what_is_loaded()
        self.engine.start()
        self.publisher = Publisher(self.engine, args["model_instance_name"])
        self.publisher.start()
        if settings.control_dir:
            Controlled(self.engine, settings.control_dir, args["model_instance_name"]).start()

    def execute(self, requests):
        """Hand every packet to the engine, which answers each when its audio is decoded."""
        packets = []
        for request in requests:
            sender = request.get_response_sender()
            try:
                flags = request.flags()
                audio = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy()[0]
                packet = Request(
                    id=request.correlation_id(),
                    audio=audio.copy(),  # what waits must not fill the memory shared with Triton
                    start=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
                    end=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
                    parameters=parameters_of(request),
                    reply=partial(self._reply, wants_result(request), sender),
                    is_cancelled=sender.is_cancelled,
                )
            except Exception as error:
                _send(sender, failure(error))
            else:
                packets.append(packet)
        self.engine.submit(*packets)
        return None

    def finalize(self):
        self.publisher.stop()
        self.engine.stop()
        self.no_text = None  # lies in shared memory, which goes before this object does

    def _reply(self, with_result, sender, update):
        """Answer one request, once, from the engine's thread."""
        try:
            if update.error is not None:
                raise update.error
            text = bytes_tensor("TEXT", update.text) if update.text else self.no_text
            outputs = text_outputs(text, update.as_dict, with_result)
            response = pb_utils.InferenceResponse(outputs)
        except Exception as error:  # an answer there must be
            response = failure(error)
        _send(sender, response)


def _send(sender, response):
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
