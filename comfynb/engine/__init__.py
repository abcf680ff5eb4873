"""The embedded engine: a small image server that speaks ComfyUI's protocol.

It is a program of its own (`python -m comfynb.engine`), spoken to over HTTP and WebSocket like any
ComfyUI. It imports nothing of the client and the client imports nothing of it.

    registry    what a node is: inputs, outputs, a function; object_info comes from it
    nodes/      the nodes that are always there
    model       tiny-scenes, the checkpoint that comes along
    validate    what POST /prompt refuses, in ComfyUI's own words
    order, cache, execute    run a graph: next node, what is known already, one node after another
    report      what the clients of a prompt are told, in ComfyUI's order
    queue, worker            prompts wait, one thread runs them, history remembers
    messages, sockets        the frames of /ws, and one bounded queue per socket
    files, transfer          folders and names; /view and /upload
    pictures                 arrays to PNG, JPEG and back
    server, stats, access    the routes; what /system_stats says; Origin, Host and token
    process                  start, ownership, end
"""
