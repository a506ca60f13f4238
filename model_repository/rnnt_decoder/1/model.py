"""Encoder frames of whole recordings to text, words and language, a batch at a time."""

from asr_triton import failure, load, parameters_of, serve_each, text_outputs, to_torch
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
        options = self.recognizer.file_options(parameters_of(request))
        result = self.recognizer.finished(tokens, num_samples, options)
        return text_outputs(request, result.text, result.as_dict)
