"""What renders: a ComfyUI server, or the embedded engine that speaks its protocol."""
