"""Views: what ran, a user's night, compared bundles, the environment. They read and render."""
