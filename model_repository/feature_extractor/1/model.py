"""Audio files to log-mel: decodes, resamples and checks the options for the steps behind it."""

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from asr_triton import from_torch, load, parameters_of, serve_each
from nemotron_asr import recordings
from nemotron_asr.audio import decode_audio
from nemotron_asr.errors import invalid


class TritonPythonModel:
    def initialize(self, args):
        self.recognizer, self.settings = load(args, parts=())

    def execute(self, requests):
        return serve_each(requests, self._extract)

    def _extract(self, request):
        self.recognizer.file_options(parameters_of(request))
        data = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy()
        if data.size != 1:
            raise invalid(f"AUDIO has {data.size} files; valid: 1 a request")
        samples = decode_audio(data.item(), self.settings.max_file_s)
        mel = recordings.features(self.recognizer, samples)
        num_samples = torch.from_numpy(np.array([len(samples)]))
        return [from_torch("MEL", mel), from_torch("NUM_SAMPLES", num_samples)]
