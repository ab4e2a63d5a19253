"""Getting weights: look what is there (hub), plan whether it fits (plan), read it into place (checkpoint).

names: official tensor names beside ours. writer, convert: files, and a smaller folder.
"""
