"""The network and nothing else: sizes, memory, layers, codec, language model, grid, dice, graphs."""
