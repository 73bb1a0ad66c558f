"""Files as people have them, judged by their content: what a file is, and its rows as columns of texts."""
