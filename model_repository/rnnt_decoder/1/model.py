"""Encoder frames of whole recordings to text, words and language, a batch at a time."""

import triton_python_backend_utils as pb_utils

from asr_triton import failure, load, text_outputs, to_torch
from nemotron_asr import recordings


class TritonPythonModel:
    def initialize(self, args):
        self.recognizer, _ = load(args, parts=("decoder", "joint"))

    def execute(self, requests):
        try:
            encoded = [to_torch(request, "ENCODED") for request in requests]
            tokens = recordings.decode(self.recognizer, encoded)
        except Exception as error:
            return [failure(error) for _ in requests]
        pairs = zip(requests, tokens, strict=True)
        return [self._respond(request, row) for request, row in pairs]

    def _respond(self, request, tokens):
        num_samples = int(to_torch(request, "NUM_SAMPLES")[0])
        result = self.recognizer.assemble(tokens, num_samples)
        return pb_utils.InferenceResponse(text_outputs(request, result.text, result.as_dict))
