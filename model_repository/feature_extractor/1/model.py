"""Audio files to log-mel: decodes, resamples and checks the options for the steps behind it."""

import torch
import triton_python_backend_utils as pb_utils

from asr_triton import from_torch, load, parameters_of, serve_each
from nemotron_asr import recordings
from nemotron_asr.audio import file_blocks
from nemotron_asr.errors import invalid


class TritonPythonModel:
    def initialize(self, args):
        self.recognizer, self.settings = load(args, parts=())

    def execute(self, requests):
        return serve_each(requests, self._extract)

    def _extract(self, request):
        options = self.recognizer.file_options(parameters_of(request))
        data = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy()
        if data.size != 1:
            raise invalid(f"AUDIO has {data.size} files; valid: 1 a request")
        blocks = file_blocks(data.item(), self.settings.max_file_s, options.channel)
        data[...] = None  # the file goes when its last block is decoded, not with the request
        mel, num_samples = recordings.features_of_blocks(self.recognizer, blocks)
        outputs = {"MEL": mel, "NUM_SAMPLES": torch.tensor([num_samples])}
        return [from_torch(name, tensor) for name, tensor in outputs.items()]
