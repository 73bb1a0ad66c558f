"""Parts of single steps of a night: new events, kept lists, scoring in waves, gates."""
