"""A ComfyUI server, over HTTP and WebSocket.

address    where it is and what opens the door (never shown)
http       requests, their errors translated, their answers bounded
cookies    those a user gave and those a login proxy sets
proxies    those that an environment names
tls        which certificates are trusted
transport  how requests to this machine travel; those to others go by httpx's own
handshake  the opening of a WebSocket, by the same ways in
messages   what the socket says, as typed values
socket     one connection: handshake, reconnect with back-off, gone
asking     what a server knows of prompts: queue, history, jobs
releases   which ComfyUI can do what
rejection  why a prompt was refused, node by node
uploads    input files on their way to the server, each once
collected  what the nodes of one prompt gave: files, frames, texts, all of it bounded
prompt     one prompt on the server: a small state machine fed by messages and by asking
backend    all of it together
"""

from comfynb.backends.comfyui.address import Address
from comfynb.backends.comfyui.backend import ComfyUIBackend

__all__ = ["Address", "ComfyUIBackend"]
