"""The live widget: the kernel's side of a conversation, its past, and the page in `static/`."""
