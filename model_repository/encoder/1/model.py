"""Log-mel of whole recordings to the joint network's input, a batch at a time."""

from collections import defaultdict

import triton_python_backend_utils as pb_utils

from asr_triton import failure, from_torch, load, parameters_of, to_torch
from nemotron_asr import recordings


class TritonPythonModel:
    def initialize(self, args):
        parts = ("encoder", "prompt_projector", "encoder_projector")
        self.recognizer, _ = load(args, parts)

    def execute(self, requests):
        responses = [None] * len(requests)
        by_lookahead = defaultdict(list)
        for i, request in enumerate(requests):
            try:
                options = self.recognizer.file_options(parameters_of(request))
                by_lookahead[options.lookahead].append((i, options))
            except Exception as error:
                responses[i] = failure(error)
        for lookahead, jobs in by_lookahead.items():
            for (i, _), response in zip(jobs, self._encode(requests, jobs, lookahead), strict=True):
                responses[i] = response
        return responses

    def _encode(self, requests, jobs, lookahead):
        try:
            encoded = recordings.encode(
                self.recognizer,
                [to_torch(requests[i], "MEL") for i, _ in jobs],
                [int(to_torch(requests[i], "NUM_SAMPLES")[0]) for i, _ in jobs],
                [self.recognizer.prompt_id(options.language) for _, options in jobs],
                lookahead,
            )
        except Exception as error:
            return [failure(error) for _ in jobs]
        return [pb_utils.InferenceResponse([from_torch("ENCODED", f)]) for f in encoded]
