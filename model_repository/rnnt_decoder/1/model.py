"""Encoder frames of whole recordings to text, words and language, a batch at a time."""

from asr_triton import failure, load, serve_each, text_outputs, to_torch
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
        rows = iter(tokens)
        return serve_each(requests, lambda request: self._outputs(request, next(rows)))

    def _outputs(self, request, tokens):
        num_samples = int(to_torch(request, "NUM_SAMPLES")[0])
        result = self.recognizer.assemble(tokens, num_samples)
        return text_outputs(request, result.text, result.as_dict)
