"""Live streams: packets in, text out. The engine does the work; this only translates."""

import time

import triton_python_backend_utils as pb_utils

from asr_triton import failure, load, parameters_of, text_outputs
from nemotron_asr import StreamingEngine
from nemotron_asr.engine import Request


class TritonPythonModel:
    def initialize(self, args):
        recognizer, settings = load(args)
        self.engine = StreamingEngine(recognizer, settings.slots, settings.idle_timeout_s)
        started = time.perf_counter()
        self.engine.warm_up()
        pb_utils.Logger.log_info(
            f"asr_streaming: {recognizer.name} on {recognizer.device}, {settings.dtype}, "
            f"{settings.slots} slots of {self.engine.arena.bytes_per_slot / 2**20:.2f} MiB, "
            f"warm in {time.perf_counter() - started:.1f} s"
        )
        self.engine.start()

    def execute(self, requests):
        """Hand every packet to the engine, which answers each when its audio is decoded."""
        for request in requests:
            reply = _Reply(request)
            try:
                packet = Request(
                    id=request.correlation_id(),
                    audio=_input(request, "AUDIO"),
                    start=bool(_input(request, "START")[0]),
                    end=bool(_input(request, "END")[0]),
                    parameters=parameters_of(request),
                    reply=reply,
                )
            except Exception as error:
                reply.send(failure(error))
            else:
                self.engine.submit(packet)
        return None

    def finalize(self):
        self.engine.stop()


def _input(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0]


class _Reply:
    """Answers one request, once, from the engine's thread."""

    def __init__(self, request):
        self._request = request
        self._sender = request.get_response_sender()

    def __call__(self, update):
        try:
            if update.error is not None:
                raise update.error
            outputs = text_outputs(self._request, update.text, update.as_dict)
            response = pb_utils.InferenceResponse(outputs)
        except Exception as error:  # an answer there must be
            response = failure(error)
        self.send(response)

    def send(self, response):
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
