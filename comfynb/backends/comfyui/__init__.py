"""A ComfyUI server, over HTTP and WebSocket.

address    where it is and what opens the door (never shown)
http       requests, their errors translated, their answers bounded
transport  how requests to this machine travel; those to others go by httpx's own
messages   what the socket says, as typed values
socket     one connection: handshake, reconnect with back-off, gone
prompt     one prompt on the server: a small state machine fed by messages and by asking
backend    the three together
"""

from comfynb.backends.comfyui.address import Address
from comfynb.backends.comfyui.backend import ComfyUIBackend

__all__ = ["Address", "ComfyUIBackend"]
