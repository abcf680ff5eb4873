"""Keyframes as a notebook, a picture file or a page shows them, without a live grid."""
