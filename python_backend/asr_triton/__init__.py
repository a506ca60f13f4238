"""What the adapters in model_repository share: loading, tensors and errors in Triton's terms.

Imported only inside Triton's Python stub, which provides triton_python_backend_utils.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from nemotron_asr import load_checkpoint
from nemotron_asr.checkpoint import PARTS
from nemotron_asr.errors import INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, AsrError
from nemotron_asr.recognizer import Recognizer
from nemotron_asr.settings import Settings, read_settings
from nemotron_asr.text_rules import read_words

# Code of an AsrError -> name of Triton's. Looked up late: the stub completes pb_utils after import.
_CODES = {INVALID_ARGUMENT: "INVALID_ARG", NOT_FOUND: "NOT_FOUND", UNAVAILABLE: "UNAVAILABLE"}


def load(args: dict, parts: tuple[str, ...] = PARTS) -> tuple[Recognizer, Settings]:
    """Load the checkpoint for a model instance, from what Triton passes to `initialize`."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    config = json.loads(args["model_config"])
    parameters = {
        name: value["string_value"] for name, value in config.get("parameters", {}).items()
    }
    settings = read_settings(parameters)
    instances = sum(group.get("count", 1) for group in config.get("instance_group", []))
    if settings.threads or instances > 1:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(settings.threads or max(1, cores // instances))
    device = settings.device
    on_gpu = args["model_instance_kind"] == "GPU" and torch.cuda.is_available()
    if on_gpu and device in ("auto", "cuda"):  # the one where Triton put this instance
        device = f"cuda:{args['model_instance_device_id']}"
    elif device == "auto":
        device = "cpu"
    recognizer = load_checkpoint(settings.checkpoint, device, settings.dtype, parts)
    if settings.profanity_file:
        recognizer.offensive_words = read_words(settings.profanity_file)
    return recognizer, settings


def parameters_of(request) -> dict:
    """The options that came with a request. HTTP headers may come in any case."""
    parameters = request.parameters()
    if parameters in ("", "{}"):  # nearly every packet of a live stream
        return {}
    return {name.lower(): value for name, value in json.loads(parameters).items()}


def to_torch(request, name: str) -> torch.Tensor:
    """An input without its batch dimension, on whatever device it is."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return torch.from_dlpack(tensor.to_dlpack())[0]


def from_torch(name: str, tensor: torch.Tensor):
    """An output with a batch dimension of one; stays on its device."""
    return pb_utils.Tensor.from_dlpack(name, tensor[None].contiguous())


def wants_result(request) -> bool:
    """Whether RESULT was asked for."""
    return "RESULT" in request.requested_output_names()


def text_outputs(text, result, with_result: bool) -> list:
    """TEXT, and RESULT where it is wanted.

    text: the tensor.  result: a function that makes RESULT's dict.
    """
    outputs = [text]
    if with_result:
        outputs.append(bytes_tensor("RESULT", json.dumps(result(), ensure_ascii=False)))
    return outputs


def bytes_tensor(name: str, text: str):
    """An output of one string."""
    return pb_utils.Tensor(name, np.array([[text.encode()]], dtype=np.object_))


def failure(error: Exception):
    """A response that carries an error: this request's alone."""
    if not isinstance(error, AsrError):
        logging.getLogger("asr_triton").exception("unexpected error", exc_info=error)
        error = AsrError("INTERNAL", f"{type(error).__name__} while serving the request")
    code = getattr(pb_utils.TritonError, _CODES.get(error.code, "INTERNAL"))
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def serve_each(requests, serve) -> list:
    """Responses of requests served one by one: `serve(request)` returns its output tensors."""
    responses = []
    for request in requests:
        try:
            responses.append(pb_utils.InferenceResponse(serve(request)))
        except Exception as error:  # must not fail the batch neighbours
            responses.append(failure(error))
    return responses
