"""The front doors: OpenAI's audio API, Riva's gRPC, a plain WebSocket and a page, before Triton."""
