"""Encoder frames of whole recordings to text, words and language, a batch at a time."""

from asr_triton import (
    bytes_tensor,
    failure,
    load,
    parameters_of,
    serve_each,
    text_outputs,
    to_torch,
    wants_result,
)
from nemotron_asr import recordings


class TritonPythonModel:
    def initialize(self, args):
        self.recognizer, _ = load(args, parts=("decoder", "joint"))

    def execute(self, requests):
        responses, jobs = [None] * len(requests), {}
        for i, request in enumerate(requests):
            try:
                jobs[i] = self._job(request)
            except Exception as error:
                responses[i] = failure(error)
        for i, response in zip(jobs, self._decode([requests[i] for i in jobs], jobs), strict=True):
            responses[i] = response
        return responses

    def _job(self, request):
        """What is to be decoded, what draws it to phrases or languages, and all its options."""
        options = self.recognizer.file_options(parameters_of(request))
        bias = self.recognizer.bias(options, self.recognizer.prompt_id(options.language))
        return to_torch(request, "ENCODED"), bias, options

    def _decode(self, requests, jobs):
        encoded, biases, options = ([job[k] for job in jobs.values()] for k in range(3))
        try:
            tokens = recordings.decode(self.recognizer, encoded, biases)
        except Exception as error:
            return [failure(error) for _ in requests]
        rows = iter(zip(tokens, options, strict=True))
        return serve_each(requests, lambda request: self._outputs(request, *next(rows)))

    def _outputs(self, request, tokens, options):
        num_samples = int(to_torch(request, "NUM_SAMPLES")[0])
        result = self.recognizer.finished(tokens, num_samples, options)
        text = bytes_tensor("TEXT", result.text)
        return text_outputs(text, result.as_dict, wants_result(request))
