"""A stand-in recogniser: the text says how long the file is, and with which options it came."""

import io
import json

import numpy as np
import soundfile
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        data = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy().reshape(-1)[0]
        options = json.loads(request.parameters() or "{}")
        try:
            samples, rate = soundfile.read(io.BytesIO(data))
        except soundfile.LibsndfileError as error:
            message = f"INVALID_ARGUMENT: cannot decode the audio: {error.error_string}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
        duration_ms = round(len(samples) * 1000 / rate)
        text = f"{duration_ms} ms, {options.get('language')}, {options.get('latency_ms')}"
        result = {
            "text": text,
            "is_final": True,
            "language": "en-US",
            "words": [
                {"text": word, "start_ms": 80 * i, "end_ms": 80 * i + 80, "confidence": 0.9}
                for i, word in enumerate(text.split())
            ],
            "audio_processed_ms": duration_ms,
        }
        outputs = {"TEXT": text, "RESULT": json.dumps(result)}
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.array([[outputs[name].encode()]], dtype=object))
                for name in sorted(request.requested_output_names())
            ]
        )
