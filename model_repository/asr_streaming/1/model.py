"""Live streams: packets in, text out. The engine does the work; this only translates."""

import logging
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import triton_python_backend_utils as pb_utils

from nemotron_asr.settings import let_threads_spin

let_threads_spin()  # before torch comes with the others

from asr_triton import bytes_tensor, failure, load, parameters_of, text_outputs, wants_result
from asr_triton.control import Controlled
from asr_triton.metrics import Publisher
from nemotron_asr import StreamingEngine
from nemotron_asr.engine import Request
from nemotron_asr.engine.garbage import spare_what_is_loaded

log = logging.getLogger(__name__)


class TritonPythonModel:
    def initialize(self, args):
        # In a thread that ends, and OpenMP's with it: where a process has more of them than cores,
        # counting those of this thread and of the engine's, none spins.
        with ThreadPoolExecutor(1) as apart:
            settings = apart.submit(self._load, args).result()
        self.no_text = bytes_tensor("TEXT", "")  # most answers: made once, it saves 10 us each
        spare_what_is_loaded()
        # To send is to wait for the server (0.3 ms): the engine decodes meanwhile.
        self.replies = queue.SimpleQueue()
        self.replying = threading.Thread(target=self._send_replies, name="replies", daemon=True)
        self.replying.start()
        self.engine.start()
        self.publisher = Publisher(self.engine, args["model_instance_name"])
        self.publisher.start()
        if settings.control_dir:
            Controlled(self.engine, settings.control_dir, args["model_instance_name"]).start()

    def _load(self, args):
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
        return settings

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
                    reply=partial(self._put_reply, wants_result(request), sender),
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
        self.replies.put(None)
        self.replying.join()
        self.no_text = None  # lies in shared memory, which goes before this object does

    def _put_reply(self, *reply):
        """Called once for each request, by the engine."""
        self.replies.put(reply)

    def _send_replies(self):
        while (reply := self.replies.get()) is not None:
            self._send_reply(*reply)

    def _send_reply(self, with_result, sender, update):
        try:
            if update.error is not None:
                raise update.error
            text = bytes_tensor("TEXT", update.text) if update.text else self.no_text
            outputs = text_outputs(text, update.as_dict, with_result)
            response = pb_utils.InferenceResponse(outputs)
        except Exception as error:  # an answer there must be
            response = failure(error)
        try:
            _send(sender, response)
        except Exception:  # to a client that is gone: harms nobody else
            log.exception("an answer could not be delivered")


def _send(sender, response):
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
