"""Is it a good listener? The judges, `lite`'s own report, and in `duplex/` Full-Duplex-Bench."""
