"""The streaming engine: who holds which slot (sessions), where caches live (arena), rounds."""

from .engine import Request, StreamingEngine, Update
from .sessions import SessionTable

__all__ = ["Request", "SessionTable", "StreamingEngine", "Update"]
