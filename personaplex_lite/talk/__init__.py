"""A conversation: words, voice and persona go in, 80 ms at a time, and a reply comes out."""
