"""What single steps of a night use: new events, kept lists, scoring in waves, gates."""
