"""Data: documents as sequences of tokens, cached, packed or streamed. Imports no higher layer."""
