"""Full-Duplex-Bench: its data, its instruments, its numbers, and the table of them."""
