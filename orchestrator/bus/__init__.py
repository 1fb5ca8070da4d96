"""The bus: messages, logs and requests, behind one port with a NATS and a memory adapter."""
